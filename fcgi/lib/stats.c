/* stats: see stats.h. */
#include "lib/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/buf.h"

/* A slot begins at a page boundary for every page size. Unused pages take no memory. */
enum { PAGE_MOST = 65536, SLOT_SIZE = (sizeof(struct shm_counters) + PAGE_MOST - 1) / PAGE_MOST * PAGE_MOST };

#define STATS_KEY(id, type, metric, labels, help) {metric, labels},
#define FAMILY_ROW(id, type, metric, help)        {metric, type},
static const struct {
    const char *metric;
    enum stat_type type;
} families[] = {FAMILIES(FAMILY_ROW)};

#define US *(int64_t)1000
#define MS *(int64_t)1000000

const int64_t stat_bounds_ns[STAT_BOUNDS] = {50 US,  100 US,  250 US,  500 US,  1 MS,     2500 US,
                                             5 MS,   10 MS,   25 MS,   50 MS,   100 MS,   250 MS,
                                             500 MS, 1000 MS, 2500 MS, 5000 MS, 10000 MS, 30000 MS};

static int64_t nothing[STAT_HISTOGRAM]; /* receives observations of lost histograms */

static struct shm_counters nowhere; /* used until a page is attached */
static struct shm_counters *own = &nowhere;
static char *page; /* the master's view of all slots, or NULL */

int stats_create(void)
{
    int fd = memfd_create("taskproxy-stats", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)SLOT_SIZE * STATS_SLOTS) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

/* The rows come first, so that the identifier of a row is its index. */
static void open_own(void)
{
    static const char *const rows[][2] = {STATS(STATS_KEY)};
    char key[SHM_COUNTERS_KEY];
    shm_counters_reset(own);
    for (size_t i = 0; i < STAT_COUNT; i++) {
        bool labelled = rows[i][1][0] != '\0';
        snprintf(key, sizeof(key), labelled ? "%s{%s}" : "%s", rows[i][0], rows[i][1]);
        if (shm_counters_series(own, key, 1, i) != i)
            abort(); /* duplicate rows, or too many */
    }
}

int stats_attach(int fd, int slot)
{
    if (slot < 0 || slot >= STATS_SLOTS)
        return -EINVAL;
    bool master = slot == STATS_MASTER_SLOT;
    size_t size = master ? (size_t)SLOT_SIZE * STATS_SLOTS : SLOT_SIZE;
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)SLOT_SIZE * slot);
    if (map == MAP_FAILED)
        return -errno;
    page = master ? map : NULL;
    own = map;
    open_own();
    return 0;
}

/* The gauges of the program before are dropped: this one sets its own. */
static void keep_totals(void)
{
    struct shm_counters *totals = xcalloc(1, sizeof(*totals));
    shm_counters_reset(totals);
    shm_counters_fold(totals, own, SHM_COUNTERS_TOTALS);
    open_own();
    shm_counters_fold(own, totals, SHM_COUNTERS_TOTALS);
    free(totals);
}

int stats_adopt(int fd)
{
    struct stat st;
    size_t size = (size_t)SLOT_SIZE * STATS_SLOTS;
    if (fstat(fd, &st) < 0 || st.st_size != (off_t)size || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -EINVAL;
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    if (((struct shm_counters *)map)->layout != SHM_COUNTERS_LAYOUT) {
        munmap(map, size);
        return -EINVAL;
    }
    page = map;
    own = map;
    keep_totals();
    return 0;
}

void stat_add(enum stat_id which, int64_t n)
{
    shm_counters_add(own, which, n);
}

void stat_set(enum stat_id which, int64_t value)
{
    series_set(&own->values[which], value);
}

int64_t stat_get(enum stat_id which)
{
    return own->values[which];
}

/* ---- families ---- */

static void add_label(struct buf *key, const char *name, const char *value)
{
    buf_addf(key, "%s%s=\"", key->data[key->len - 1] == '{' ? "" : ",", name);
    for (; *value != '\0'; value++) {
        if (*value == '"' || *value == '\\')
            buf_putc(key, '\\');
        buf_putc(key, (unsigned char)*value < ' ' ? ' ' : *value);
    }
    buf_putc(key, '"');
}

/* False if the key is too long. */
static bool make_key(enum family_id family, const char *const *labels, char out[static SHM_COUNTERS_KEY])
{
    struct buf key;
    buf_init(&key, SHM_COUNTERS_KEY - 1);
    buf_puts(&key, families[family].metric);
    if (labels[0] != NULL)
        buf_putc(&key, '{');
    for (const char *const *label = labels; *label != NULL; label += 2)
        add_label(&key, label[0], label[1]);
    if (labels[0] != NULL)
        buf_putc(&key, '}');
    bool whole = !key.failed;
    strcpy(out, key.data);
    buf_done(&key);
    return whole;
}

int64_t *stat_series_of(enum family_id family, const char *const *labels)
{
    char key[SHM_COUNTERS_KEY];
    bool times = families[family].type == histogram;
    size_t at = SHM_COUNTERS_VALUES;
    if (own->n == 0)
        open_own();
    if (make_key(family, labels, key))
        at = shm_counters_series(own, key, times ? STAT_HISTOGRAM : 1, 0);
    if (at < SHM_COUNTERS_VALUES)
        return &own->values[at];
    return times ? nothing : &own->values[STAT_SERIES_LOST];
}

void series_observe(int64_t *series, int64_t ns)
{
    size_t bucket = 0;
    while (bucket < STAT_BOUNDS && ns > stat_bounds_ns[bucket])
        bucket++;
    series_add(&series[bucket], 1);
    series_add(&series[STAT_SUM], ns > 0 ? ns : 0);
}

/* ---- sums ---- */

static struct shm_counters *slot_sheet(int slot)
{
    return (struct shm_counters *)(void *)(page + (size_t)SLOT_SIZE * (size_t)slot);
}

void stats_beat(void)
{
    series_set(&own->beats, own->beats + 1);
}

int64_t stats_beats(int slot)
{
    return __atomic_load_n(&slot_sheet(slot)->beats, __ATOMIC_RELAXED);
}

void stats_fold(int slot)
{
    shm_counters_fold(own, slot_sheet(slot), SHM_COUNTERS_TOTALS);
    shm_counters_reset(slot_sheet(slot));
}

void stats_sum_of(int slot, struct shm_counters *ret)
{
    shm_counters_reset(ret);
    if (page != NULL)
        shm_counters_fold(ret, slot_sheet(slot), SHM_COUNTERS_ALL);
}

void stats_sum(struct shm_counters *ret)
{
    shm_counters_reset(ret);
    for (int slot = 0; page != NULL && slot < STATS_SLOTS; slot++)
        shm_counters_fold(ret, slot_sheet(slot), SHM_COUNTERS_ALL);
}

int64_t stat_read(const struct shm_counters *sum, enum stat_id which)
{
    return which < sum->n ? sum->values[which] : 0; /* the master's rows come first in it */
}

int64_t series_read_of(const struct shm_counters *sum, enum family_id family, const char *const *labels)
{
    char key[SHM_COUNTERS_KEY];
    return make_key(family, labels, key) ? shm_counters_value(sum, key) : 0;
}

/* ---- the most watched tasks ---- */

void stats_tell_watched(const struct top_tasks_list *list)
{
    top_tasks_write(&own->board, list);
}

void stats_watched(struct top_tasks_list *ret)
{
    struct top_tasks_list list;
    *ret = (struct top_tasks_list){0};
    for (int slot = 0; page != NULL && slot < STATS_SLOTS; slot++) {
        if (top_tasks_read(&slot_sheet(slot)->board, &list))
            top_tasks_merge(ret, &list);
    }
}
