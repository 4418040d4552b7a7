# The proxy in a container. Build: docker build -t bowline .
# Run, with proxy.toml, certs/ and keys/ in the current folder:
#   docker run -v "$PWD:/etc/bowline" -p 443:443 bowline

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin bowline

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 990 --home-dir /var/lib/bowline --create-home bowline
COPY --from=build /build/target/release/bowline /usr/local/bin/bowline
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/bowline/
USER bowline
WORKDIR /etc/bowline
# SIGTERM: no new connections, live sessions go on until `[shutdown] deadline`; give `docker stop` as much time.
STOPSIGNAL SIGTERM
ENTRYPOINT ["bowline"]
CMD ["proxy", "-c", "/etc/bowline/proxy.toml"]
