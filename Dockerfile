# The image of Gatehouse: one static file, the certificate authorities, an empty data folder. There is no shell in it, and nothing
# else that could be run.
#
#   docker build -t gatehouse .
#
# docker-compose.yml shows it in use; docs/install.md says how.

FROM golang:1.26 AS build
WORKDIR /src
# The modules are a layer of their own: a change of the source does not fetch them again.
COPY go.mod go.sum ./
RUN go mod download
# With .git, so that `gatehouse version` names the commit and says whether anything was changed.
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /out/gatehouse ./cmd/gatehouse
RUN mkdir /out/data

FROM scratch
# For an app or a Redis behind https:// or rediss://.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/gatehouse /usr/local/bin/gatehouse
# A new volume takes owner and mode from here.
COPY --from=build --chown=65532:65532 --chmod=0700 /out/data /var/lib/gatehouse

# A number, because there is no file of users here, and so that Kubernetes can see that it is not root.
USER 65532:65532
# Every address of the container: what is reachable from outside is decided by what is published.
ENV GATEHOUSE_LISTEN=:8080 \
    GATEHOUSE_DATA=/var/lib/gatehouse
VOLUME ["/var/lib/gatehouse"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 CMD ["/usr/local/bin/gatehouse", "health"]
ENTRYPOINT ["/usr/local/bin/gatehouse"]
CMD ["serve"]
