"""Networks that register, one file each; `lightning_modules.learned` trains and runs them."""
