/* sheet: the numbers of one process, in memory that another process may read meanwhile.
 *
 * A series is a key, which is a metric's name and labels as Prometheus writes them, and a value, or several next to
 * each other (a histogram's). One process writes a sheet, and only ever adds series to it. What a value is, its key
 * says and not its place: so the sheets of processes with other routes, or of another version of this program, can be
 * added up. A reader believes nothing that it finds in a sheet. */
#ifndef SHEET_H
#define SHEET_H

#include "watched.h"

enum { SHEET_VALUES = 2048, SHEET_KEY = 248 };

struct sheet {
    uint32_t layout; /* SHEET_LAYOUT, or its reader knows nothing of it */
    uint32_t n;      /* values in use */
    int64_t beats;   /* signs of life */
    struct watched_board board;
    int64_t values[SHEET_VALUES]; /* of a series with several, those behind the first have no key */
    char keys[SHEET_VALUES][SHEET_KEY];
};

/* The first digit is the version: another one for another layout. */
#define SHEET_LAYOUT ((uint32_t)(0x10000000u + sizeof(struct sheet)))

/* Without series. Memory behind those in use may hold anything. */
void sheet_reset(struct sheet *sheet);

/* The place of a series' first value; the series is made if there is none. `guess` is where it may be, to be looked at
 * first. SHEET_VALUES when there is no room, or the key is too long. */
size_t sheet_series(struct sheet *sheet, const char *key, size_t width, size_t guess);

/* A series' first value; 0 when there is none. */
int64_t sheet_value(const struct sheet *sheet, const char *key);

/* How many values the series at that place has. */
size_t sheet_width(const struct sheet *sheet, size_t at);

/* Whether a key is of that metric. */
bool sheet_key_is(const char *key, const char *metric);

enum sheet_part {
    SHEET_ALL,
    SHEET_TOTALS /* what only grows: counters, whose names end in "_total", and histograms */
};

/* Adds the values of another sheet to those with the same keys. */
void sheet_fold(struct sheet *into, const struct sheet *from, enum sheet_part part);

/* One writer a sheet: a relaxed store that a reader never sees torn is enough. */
static inline void sheet_add(struct sheet *sheet, size_t at, int64_t n)
{
    __atomic_store_n(&sheet->values[at], sheet->values[at] + n, __ATOMIC_RELAXED);
}

#endif
