"""The settings of Django in a release's processes: the application's, with the deployment's over them (coldframe.overlay).

python -m coldframe.settings prints what is laid over, and what stays as the application has it.
"""

from coldframe import overlay

if __name__ == "__main__":
    from coldframe.overlay import report

    report.main()
else:
    globals().update(overlay.django_settings())
