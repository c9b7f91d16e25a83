/* Loaded before the C library (LD_PRELOAD), this kills a refresher at a point of a refresh. The file $KILL_ORDER orders it:
 * the point's name and the token endpoint's port. Only what is done while it is there counts; it becomes $KILL_ORDER.done
 * when it is carried out.
 *
 * claim    the claim is about to be written to SQLite's log
 * connect  it is on disk, and the token endpoint is about to be connected to
 * store    the new tokens are about to be written to SQLite's log
 * sync     they are written, and about to be brought to the disk
 * tell     they are on disk, and nobody knows yet
 * publish  an answer with the news is about to be sent to Envoy
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* SQLite writes the headers of its log, and of what it puts there, apart from the pages. */
#define PAGE 512

static atomic_bool connected, synced;
static _Thread_local bool written;

/* The point of the order, if there is one, and its port. */
static bool ordered(char point[16], int *port) {
    const char *path = getenv("KILL_ORDER");
    char text[64] = {0};
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return false;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 && sscanf(text, "%15s %d", point, port) == 2;
}

static bool is_ordered(void) {
    char point[16];
    int port;
    return ordered(point, &port);
}

/* Here is that point. */
static void at(const char *here) {
    char point[16], done[4096];
    int port;
    if (!ordered(point, &port) || strcmp(point, here))
        return;
    snprintf(done, sizeof done, "%s.done", getenv("KILL_ORDER"));
    if (!rename(getenv("KILL_ORDER"), done))
        kill(getpid(), SIGKILL);
}

/* Whether a file is SQLite's log. */
static bool is_log(int file) {
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 4 && !memcmp(path + length - 4, "-wal", 4);
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    char point[16];
    int port;
    if (address->sa_family == AF_INET && ordered(point, &port)
        && ntohs(((const struct sockaddr_in *)address)->sin_port) == port) {
        at("connect");
        connected = true;
    }
    return (int)syscall(SYS_connect, socket, address, length);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    if (is_ordered() && is_log(file)) {
        at(connected ? "store" : "claim");
        written = connected && count >= PAGE;
    }
    return syscall(SYS_pwrite64, file, bytes, count, offset);
}

static int brought_to_disk(long call, int file) {
    bool tokens = written && is_log(file);
    if (tokens)
        at("sync");
    int failed = (int)syscall(call, file);
    if (tokens && !failed) {
        synced = true;
        at("tell");
    }
    return failed;
}

int fsync(int file) { return brought_to_disk(SYS_fsync, file); }
int fdatasync(int file) { return brought_to_disk(SYS_fdatasync, file); }

/* Only Envoy, and who does as Envoy does, is at the other end of a Unix socket. */
static void sends(int socket) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (synced && !getsockname(socket, (struct sockaddr *)&address, &length) && address.ss_family == AF_UNIX)
        at("publish");
}

ssize_t write(int file, const void *bytes, size_t count) {
    sends(file);
    return syscall(SYS_write, file, bytes, count);
}

ssize_t writev(int file, const struct iovec *pieces, int count) {
    sends(file);
    return syscall(SYS_writev, file, pieces, count);
}

ssize_t send(int socket, const void *bytes, size_t count, int flags) {
    sends(socket);
    return syscall(SYS_sendto, socket, bytes, count, flags, NULL, 0);
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
    sends(socket);
    return syscall(SYS_sendmsg, socket, message, flags);
}
