# syntax=docker/dockerfile:1

# Base images. A release build names them by digest (`docs/releasing.md`); a tag may move.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

# A newer stable compiler than `rust-version` in Cargo.toml on purpose: that is only the oldest one
# that Errand supports.
# OpenSSL is built from source (`vendored`): it is newer than Debian's and parses keys faster, and
# the runtime image needs no libssl.
FROM ${RUST_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --features vendored --bin errand \
    && cp target/release/errand /usr/local/bin/errand

# No HEALTHCHECK: the orchestrator probes /readyz, whose listener depends on the configuration.
FROM ${RUNTIME_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin errand
COPY --from=build /usr/local/bin/errand /usr/local/bin/errand
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["errand"]
CMD ["serve", "--config", "/etc/errand/errand.toml"]
