/* monotonic: a monotonic clock that a unit test can move forward. Included by one file of a program. */
#ifndef MONOTONIC_H
#define MONOTONIC_H

#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int64_t skipped_s; /* seconds that the monotonic clock is ahead */

/* Replaces the C library's function, which libuv reads the time with. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (clock != CLOCK_REALTIME)
        now->tv_sec += skipped_s;
    return result;
}

#endif
