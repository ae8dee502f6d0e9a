"""``python -m pud``, and ``torchrun -m pud`` for a step on several GPUs or processes."""

from pud.platform.cli import main

if __name__ == "__main__":
    main()
