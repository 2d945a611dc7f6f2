from django.db import models


class Note(models.Model):
    text = models.TextField()
    sent = models.DateTimeField(null=True, blank=True)

    def __str__(self):
        return self.text[:40]
