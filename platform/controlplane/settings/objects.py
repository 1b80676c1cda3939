"""Where checked files are kept: in an S3-compatible store where the environment names one, else in
a folder under ``TESSERA_HOME``.

Access keys are no settings: boto3 takes them from the environment itself, or from the role of the
machine or pod.
"""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from . import environment

AWS_ENDPOINT_URL_S3 = environment.text("AWS_ENDPOINT_URL_S3")
AWS_STORAGE_BUCKET_NAME = environment.text("AWS_STORAGE_BUCKET_NAME")
AWS_REGION = environment.text("AWS_REGION")

if AWS_ENDPOINT_URL_S3 and not AWS_ENDPOINT_URL_S3.startswith(("http://", "https://")):
    raise ImproperlyConfigured("AWS_ENDPOINT_URL_S3 must begin with http:// or https://.")
if AWS_ENDPOINT_URL_S3 and not AWS_STORAGE_BUCKET_NAME:
    raise ImproperlyConfigured(
        "AWS_ENDPOINT_URL_S3 is set and AWS_STORAGE_BUCKET_NAME is not. Name the bucket, or set "
        "neither to keep files in a folder."
    )
