# The explorer and the service, with the pair in the box: docs/explorer.md
FROM python:3.12-slim
WORKDIR /app
COPY . .
RUN pip install --no-cache-dir ".[serve]" -c constraints.txt && useradd --create-home --uid 1000 nlakit
USER nlakit
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"
ENTRYPOINT ["nlakit"]
# Whoever reaches this address needs the token: docker run -e NLAKIT_TOKEN=... -p 8000:8000 IMAGE
CMD ["explore", "demo", "--host", "0.0.0.0"]
