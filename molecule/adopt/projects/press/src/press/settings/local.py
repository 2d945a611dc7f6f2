from press.settings.base import *

SECRET_KEY = "local"
DEBUG = True
