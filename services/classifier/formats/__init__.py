"""Files that other runtimes read: one module a format, imported only where it is asked for."""
