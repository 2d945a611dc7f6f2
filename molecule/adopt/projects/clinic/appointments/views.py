from django import forms
from django.core.cache import cache
from django.db import transaction
from django.shortcuts import redirect, render
from rest_framework import generics, serializers

from .models import Appointment
from .tasks import describe_scan, month_report, send_reminder


class AppointmentForm(forms.ModelForm):
    class Meta:
        model = Appointment
        fields = ["patient", "email", "at", "scan"]


class AppointmentSerializer(serializers.ModelSerializer):
    class Meta:
        model = Appointment
        fields = ["id", "patient", "email", "at", "scan", "thumbnail", "reminded"]


class AppointmentList(generics.ListCreateAPIView):
    queryset = Appointment.objects.all()
    serializer_class = AppointmentSerializer

    def perform_create(self, serializer):
        appointment = serializer.save()
        transaction.on_commit(lambda: after(appointment))


def after(appointment):
    send_reminder.delay(appointment.pk)
    month_report.delay()
    if appointment.scan:
        describe_scan.delay(appointment.pk)


def index(request):
    visits = cache.get_or_set("visits", 0, None)
    cache.incr("visits")
    return render(request, "appointments/index.html", {"appointments": Appointment.objects.all(), "visits": visits})


def new(request):
    form = AppointmentForm(request.POST or None, request.FILES or None)
    if form.is_valid():
        with transaction.atomic():
            appointment = form.save()
            transaction.on_commit(lambda: after(appointment))
        return redirect("index")
    return render(request, "appointments/new.html", {"form": form})
