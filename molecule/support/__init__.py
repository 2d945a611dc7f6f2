"""What the host tests of every scenario share, beside the fixtures in molecule/conftest.py."""
