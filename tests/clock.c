/* A wall clock that tests set, for all processes that are started with it (LD_PRELOAD). CLOCK_FILE names eight bytes: how
   many nanoseconds it is ahead of the machine's. Monotonic clocks stay, so that waits take what they take; libfaketime 0.9.10
   fails there: Python's sleep ends with EINVAL, or not at all. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t SECOND = 1000000000;
static const volatile int64_t *shift;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        shift = mapped;
    close(file);
}

static void move(struct timespec *moment, int64_t by) {
    int64_t whole = moment->tv_sec * SECOND + moment->tv_nsec + by;
    moment->tv_sec = whole / SECOND;
    moment->tv_nsec = whole % SECOND;
}

int clock_gettime(clockid_t clock, struct timespec *moment) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, moment);
    if (!failed && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        move(moment, *shift);
    return failed;
}

int gettimeofday(struct timeval *restrict moment, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    moment->tv_sec = precise.tv_sec;
    moment->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (seconds)
        *seconds = precise.tv_sec;
    return precise.tv_sec;
}

/* gRPC waits until a moment of the wall clock, by a futex of its own. */
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_list list;
    long given[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        given[i] = va_arg(list, long);
    va_end(list);
    struct timespec until;
    if (number == SYS_futex && shift && (given[1] & FUTEX_CLOCK_REALTIME) && given[3]) {
        until = *(struct timespec *)given[3];
        move(&until, -*shift);
        given[3] = (long)&until;
    }
    return real(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
