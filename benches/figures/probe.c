/* The measured child and the floors it is compared with: the least that any supervisor must do.
 *
 *   probe child FILE ID        appends {id, pid, now} to FILE as its first act, then sleeps
 *   probe exit                 ends at once
 *   probe writer FILE MIB      writes MIB MiB of 100-byte lines to stdout, then as `child`
 *   probe floor FILE N         starts N children, each again when it has died; SIGTERM kills
 *                              all of them, waits for them and ends
 *   probe splice FILE DIR MIB  runs a writer on a pipe and splices it into DIR/log, which it
 *                              rotates at 10 MiB keeping ten; SIGTERM ends it
 *
 * Times are CLOCK_MONOTONIC in nanoseconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SEGMENT (10 << 20)
#define KEEP 10
#define MARKER (1ull << 32) /* id of the record that a writer leaves at its end */

extern char **environ;
static char *self;
static volatile sig_atomic_t ending;

static void record(const char *file, uint64_t id) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t words[3] = {id, (uint64_t)getpid(),
                         (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec};
    int fd = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0 || write(fd, words, sizeof words) != sizeof words) _exit(111);
    close(fd);
}

static int child(const char *file, uint64_t id) {
    record(file, id);
    for (;;) pause();
}

static int writer(const char *file, long mib) {
    enum { LINE = 100, LINES = 655 };
    static char block[LINE * LINES];
    memset(block, 'x', sizeof block);
    for (int i = 1; i <= LINES; i++) block[i * LINE - 1] = '\n';
    long long left = mib << 20;
    while (left > 0) {
        size_t want = left < (long long)sizeof block ? (size_t)left : sizeof block, done = 0;
        while (done < want) {
            ssize_t n = write(1, block + done, want - done);
            if (n < 0) _exit(112);
            done += (size_t)n;
        }
        left -= (long long)want;
    }
    if (write(1, "\nTHE END\n", 9) != 9) _exit(112);
    return child(file, MARKER);
}

static void on_term(int signal) {
    (void)signal;
    ending = 1;
}

static void handle_term(void) {
    struct sigaction action = {.sa_handler = on_term}; /* no SA_RESTART: waiting must end */
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static pid_t start(const char *file, int id) {
    char number[16];
    snprintf(number, sizeof number, "%d", id);
    char *argv[] = {self, "child", (char *)file, number, NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        execve(self, argv, environ);
        _exit(127);
    }
    return pid;
}

static int floor_loop(const char *file, int count) {
    pid_t *pids = calloc((size_t)count, sizeof *pids);
    handle_term();
    for (int i = 0; i < count; i++) pids[i] = start(file, i);
    while (!ending) {
        pid_t pid = waitpid(-1, NULL, 0);
        if (pid < 0) {
            if (errno != EINTR) pause();
            continue;
        }
        for (int i = 0; i < count; i++)
            if (pids[i] == pid) pids[i] = start(file, i);
    }
    for (int i = 0; i < count; i++) kill(pids[i], SIGTERM);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {}
    return 0;
}

static void rotate(const char *dir) {
    char from[PATH_MAX], to[PATH_MAX];
    for (int i = KEEP; i >= 1; i--) {
        snprintf(to, sizeof to, "%s/log.%d", dir, i);
        if (i > 1) snprintf(from, sizeof from, "%s/log.%d", dir, i - 1);
        else snprintf(from, sizeof from, "%s/log", dir);
        rename(from, to);
    }
}

static int splice_loop(const char *file, const char *dir, const char *mib) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return 1;
    fcntl(ends[0], F_SETPIPE_SZ, 1 << 20);
    char *argv[] = {self, "writer", (char *)file, (char *)mib, NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        dup2(ends[1], 1);
        execve(self, argv, environ);
        _exit(127);
    }
    handle_term();
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/log", dir);
    int log = -1;
    size_t room = 0;
    while (!ending) {
        if (room == 0) {
            if (log >= 0) {
                close(log);
                rotate(dir);
            }
            log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
            room = SEGMENT;
        }
        ssize_t n = splice(ends[0], NULL, log, NULL, room, SPLICE_F_MOVE);
        if (n > 0) room -= (size_t)n;
        else if (n == 0 || errno != EINTR) break;
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}

int main(int argc, char **argv) {
    self = argv[0];
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "child") && argc == 4) return child(argv[2], strtoull(argv[3], NULL, 10));
    if (!strcmp(mode, "exit")) return 0;
    if (!strcmp(mode, "writer") && argc == 4) return writer(argv[2], atol(argv[3]));
    if (!strcmp(mode, "floor") && argc == 4) return floor_loop(argv[2], atoi(argv[3]));
    if (!strcmp(mode, "splice") && argc == 5) return splice_loop(argv[2], argv[3], argv[4]);
    return 2;
}
