from django.db import models


class Appointment(models.Model):
    patient = models.CharField(max_length=80)
    email = models.EmailField()
    at = models.DateTimeField()
    scan = models.FileField(upload_to="scans/%Y/%m/", blank=True)
    thumbnail = models.CharField(max_length=200, blank=True)
    reminded = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["at"]

    def __str__(self):
        return f"{self.patient} {self.at:%d.%m. %H:%M}"
