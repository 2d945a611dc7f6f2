from django.db import models


class Issue(models.Model):
    title = models.CharField(max_length=100)
    pages = models.PositiveSmallIntegerField(default=3)
    bound = models.TextField(blank=True)

    def __str__(self):
        return self.title


class Visits(models.Model):
    counted = models.PositiveIntegerField(default=0)
