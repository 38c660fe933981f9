"""Single ``.safetensors`` files in Stable Diffusion's original layout, as people share them."""
