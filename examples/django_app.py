"""A whole Django project in one file, over WSGI: waitress runs it in threads.

rrdispatch run django_app:application --cwd examples --threads 8

``application`` is what a project has in its wsgi.py (``shop.wsgi:application``) or asgi.py; both
are seen for what they are. Behind a proxy say --forwarded-allow-ips: ``request.is_secure()``.
"""

from __future__ import annotations

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example only"),
    USE_TZ=True,
)


def hello(request: HttpRequest) -> JsonResponse:
    told = {"worker": os.environ.get("RRDISPATCH_SLOT"), "pid": os.getpid()}
    return JsonResponse({**told, "client": request.META["REMOTE_ADDR"]})


urlpatterns = [path("", hello)]
application = get_wsgi_application()
