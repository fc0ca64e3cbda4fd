"""A whole site in one file, run as ``with_django.py runserver``."""

import sys

import apps
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    DEBUG=True, SECRET_KEY="for tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, DATABASES={}
)


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(apps.BODY, headers=apps.told(request.META["REMOTE_ADDR"]))


urlpatterns = [path("", hello)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
