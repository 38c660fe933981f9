"""The generator service: Stable Diffusion pictures, made step by step in one continuous batch."""
