/* shm_counters: the counters of one process, in memory shared with the process that reads them.
 *
 * A series has a key, the metric's name and labels as Prometheus writes them, and one value, or several in a
 * row for a histogram. Each sheet has one writer, which only adds series. The key identifies a value, not its
 * index, so sheets of processes with other routes or another version of the program can be added up. A reader
 * validates everything that it reads from a sheet. */
#ifndef SHM_COUNTERS_H
#define SHM_COUNTERS_H

#include "lib/top_tasks.h"

enum { SHM_COUNTERS_VALUES = 2048, SHM_COUNTERS_KEY = 248 };

struct shm_counters {
    uint32_t layout; /* SHM_COUNTERS_LAYOUT; a reader ignores any other */
    uint32_t n;      /* values in use */
    int64_t beats;   /* heartbeats */
    struct top_tasks_board board;
    int64_t values[SHM_COUNTERS_VALUES]; /* of a series with several values, only the first has a key */
    char keys[SHM_COUNTERS_VALUES][SHM_COUNTERS_KEY];
};

/* The first digit is the version of the layout. */
#define SHM_COUNTERS_LAYOUT ((uint32_t)(0x10000000u + sizeof(struct shm_counters)))

/* Removes all series. Memory after the values in use may contain anything. */
void shm_counters_reset(struct shm_counters *sheet);

/* The index of a series' first value; creates the series if needed. `guess` is the index to check first.
 * SHM_COUNTERS_VALUES if the sheet is full or the key is too long. */
size_t shm_counters_series(struct shm_counters *sheet, const char *key, size_t width, size_t guess);

/* The first value of a series, or 0. */
int64_t shm_counters_value(const struct shm_counters *sheet, const char *key);

/* The number of values of the series at that index. */
size_t shm_counters_width(const struct shm_counters *sheet, size_t at);

/* Whether a key belongs to the metric. */
bool shm_counters_key_is(const char *key, const char *metric);

enum shm_counters_part {
    SHM_COUNTERS_ALL,
    SHM_COUNTERS_TOTALS /* counters, whose names end in "_total", and histograms */
};

/* Adds the values of another sheet to those with the same keys. */
void shm_counters_fold(struct shm_counters *into, const struct shm_counters *from,
                       enum shm_counters_part part);

/* Each sheet has one writer, so a relaxed atomic store is enough. */
static inline void shm_counters_add(struct shm_counters *sheet, size_t at, int64_t n)
{
    __atomic_store_n(&sheet->values[at], sheet->values[at] + n, __ATOMIC_RELAXED);
}

#endif
