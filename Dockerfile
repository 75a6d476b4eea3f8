# A server of one run:  docker build -t chiasm .  &&  docker run -p 8000:8000 -v $PWD/runs:/runs chiasm /runs/quickstart
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY recipes recipes
COPY studies studies
RUN pip install --no-cache-dir '.[serve,world]' && useradd --create-home chiasm
USER chiasm
EXPOSE 8000
ENTRYPOINT ["chiasm", "serve", "--host", "0.0.0.0"]
