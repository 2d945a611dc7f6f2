#!/usr/bin/env python
import os

from weblate.runner import main

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
main()
