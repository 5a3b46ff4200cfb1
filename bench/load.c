// Asks a server on a unix socket for one path, again and again over connections that stay open, and prints how many
// answers came a second, their median time, and how many bytes one had. Sequential on each connection: no pipelining.
//
//   load SOCKET PATH CONNECTIONS SECONDS
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (4 << 20)
#define SAMPLES (1 << 20)

struct result {
    long answers;
    long bytes;
    double median_us;
};

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "unexpected answer");
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int order(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int reach(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) die("the socket's path is too long");
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die(path);
    return fd;
}

// Reads one answer with a Content-Length or in chunks; gives its size.
static long answer(int fd, char *buffer) {
    long have = 0, head = 0, length = -1;
    int chunked = 0;
    for (;;) {
        ssize_t n = read(fd, buffer + have, BUFFER - 1 - have);
        if (n <= 0) die("read");
        have += n;
        buffer[have] = 0;
        if (!head) {
            char *end = strstr(buffer, "\r\n\r\n");
            if (!end) continue;
            head = end + 4 - buffer;
            if (strncmp(buffer, "HTTP/1.1 200", 12) != 0) {
                errno = 0;
                *strchr(buffer, '\r') = 0;
                die(buffer);
            }
            char *field = strcasestr(buffer, "\r\ncontent-length:");
            if (field && field < end)
                length = atol(field + 17);
            else
                chunked = 1;
        }
        if (chunked ? have - head >= 5 && memcmp(buffer + have - 5, "0\r\n\r\n", 5) == 0 : have - head >= length) return have;
        if (have >= BUFFER - 1) die("the answer is too large");
    }
}

static struct result run(const char *socket_path, const char *path, double seconds) {
    static float samples[SAMPLES];
    char request[4096];
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: load\r\nAccept: application/json\r\n\r\n", path);
    char *buffer = malloc(BUFFER);
    if (!buffer) die("malloc");
    int fd = reach(socket_path);
    struct result r = {0};
    double begin = now(), before = begin;
    while (before - begin < seconds) {
        if (write(fd, request, size) != size) die("write");
        r.bytes = answer(fd, buffer);
        double after = now();
        if (r.answers < SAMPLES) samples[r.answers] = (after - before) * 1e6;
        r.answers++;
        before = after;
    }
    long n = r.answers < SAMPLES ? r.answers : SAMPLES;
    qsort(samples, n, sizeof *samples, order);
    r.median_us = samples[n / 2];
    return r;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: load SOCKET PATH CONNECTIONS SECONDS\n");
        return 2;
    }
    int connections = atoi(argv[3]), ends[2];
    double seconds = atof(argv[4]);
    if (pipe(ends) < 0) die("pipe");
    for (int i = 0; i < connections; i++) {
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (pid == 0) {
            struct result r = run(argv[1], argv[2], seconds);
            if (write(ends[1], &r, sizeof r) != sizeof r) die("write");
            _exit(0);
        }
    }
    close(ends[1]);
    struct result r, sum = {0};
    int reported = 0;
    while (read(ends[0], &r, sizeof r) == sizeof r) {
        sum.answers += r.answers;
        sum.bytes = r.bytes;
        sum.median_us += r.median_us;
        reported++;
    }
    while (wait(NULL) > 0) {
    }
    if (reported != connections) return 1;
    printf("{\"per_second\": %.0f, \"median_us\": %.0f, \"bytes\": %ld}\n", sum.answers / seconds, sum.median_us / reported, sum.bytes);
    return 0;
}
