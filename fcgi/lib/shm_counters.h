/* shm_counters: the numbers of one process, in memory that another process may read meanwhile.
 *
 * A series is a key, which is a metric's name and labels as Prometheus writes them, and a value, or several next to
 * each other (a histogram's). One process writes a sheet, and only ever adds series to it. What a value is, its key
 * says and not its place: so the sheets of processes with other routes, or of another version of this program, can be
 * added up. A reader believes nothing that it finds in a sheet. */
#ifndef SHM_COUNTERS_H
#define SHM_COUNTERS_H

#include "lib/top_tasks.h"

enum { SHM_COUNTERS_VALUES = 2048, SHM_COUNTERS_KEY = 248 };

struct shm_counters {
    uint32_t layout; /* SHM_COUNTERS_LAYOUT, or its reader knows nothing of it */
    uint32_t n;      /* values in use */
    int64_t beats;   /* signs of life */
    struct top_tasks_board board;
    int64_t values[SHM_COUNTERS_VALUES]; /* of a series with several, those behind the first have no key */
    char keys[SHM_COUNTERS_VALUES][SHM_COUNTERS_KEY];
};

/* The first digit is the version: another one for another layout. */
#define SHM_COUNTERS_LAYOUT ((uint32_t)(0x10000000u + sizeof(struct shm_counters)))

/* Without series. Memory behind those in use may hold anything. */
void shm_counters_reset(struct shm_counters *sheet);

/* The place of a series' first value; the series is made if there is none. `guess` is where it may be, to be looked at
 * first. SHM_COUNTERS_VALUES when there is no room, or the key is too long. */
size_t shm_counters_series(struct shm_counters *sheet, const char *key, size_t width, size_t guess);

/* A series' first value; 0 when there is none. */
int64_t shm_counters_value(const struct shm_counters *sheet, const char *key);

/* How many values the series at that place has. */
size_t shm_counters_width(const struct shm_counters *sheet, size_t at);

/* Whether a key is of that metric. */
bool shm_counters_key_is(const char *key, const char *metric);

enum shm_counters_part {
    SHM_COUNTERS_ALL,
    SHM_COUNTERS_TOTALS /* what only grows: counters, whose names end in "_total", and histograms */
};

/* Adds the values of another sheet to those with the same keys. */
void shm_counters_fold(struct shm_counters *into, const struct shm_counters *from,
                       enum shm_counters_part part);

/* One writer a sheet: a relaxed store that a reader never sees torn is enough. */
static inline void shm_counters_add(struct shm_counters *sheet, size_t at, int64_t n)
{
    __atomic_store_n(&sheet->values[at], sheet->values[at] + n, __ATOMIC_RELAXED);
}

#endif
