"""What every service stands on: errors, the engine, pools, configuration, logging.

Knows no contract, no model library and no service; only ``services.core.server`` knows gRPC.
"""
