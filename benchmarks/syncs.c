/* Preloaded into each measured program: counts its fsync and fdatasync calls, and makes each take longer if asked.
 *
 * BENCH_SYNCS       a file of 8 bytes, shared by all processes of one measurement: the count.
 * BENCH_SYNC_US     microseconds to add before each call (default 0): the round trip of a disk behind a network.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static unsigned long *count;
static long delay_us;

__attribute__((constructor)) static void open_count(void) {
    const char *path = getenv("BENCH_SYNCS"), *delay = getenv("BENCH_SYNC_US");
    delay_us = delay ? atol(delay) : 0;
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    count = shared == MAP_FAILED ? NULL : shared;
    close(file);
}

static int synced(const char *name, int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    struct timespec left = {delay_us / 1000000, delay_us % 1000000 * 1000};
    if (count) __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    while (delay_us > 0 && nanosleep(&left, &left) != 0 && errno == EINTR);
    return real(file);
}

int fsync(int file) { return synced("fsync", file); }
int fdatasync(int file) { return synced("fdatasync", file); }
