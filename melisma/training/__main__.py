"""``python -m melisma.training RECIPE.yaml FOLDER``; under ``torchrun`` the processes share the gradients."""

import sys

from melisma.training.launch import main

if __name__ == "__main__":
    sys.exit(main())
