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

/* ---- the counters of one process ---- */

void shm_counters_reset(struct shm_counters *s)
{
    s->n = 0;
    s->beats = 0;
    s->board = (struct top_tasks_board){0};
    s->layout = SHM_COUNTERS_LAYOUT;
}

static size_t used_of(const struct shm_counters *s)
{
    size_t n = __atomic_load_n(&s->n, __ATOMIC_ACQUIRE);
    return s->layout != SHM_COUNTERS_LAYOUT ? 0 : n < SHM_COUNTERS_VALUES ? n : SHM_COUNTERS_VALUES;
}

/* The series at `at` ends before the next key, or at `end`. */
static size_t width_up_to(const struct shm_counters *s, size_t at, size_t end)
{
    size_t width = 1;
    while (at + width < end && s->keys[at + width][0] == '\0')
        width++;
    return width;
}

size_t shm_counters_width(const struct shm_counters *s, size_t at)
{
    return width_up_to(s, at, used_of(s));
}

/* SHM_COUNTERS_VALUES if there is no such series. */
static size_t find(const struct shm_counters *s, const char *key, size_t width, size_t guess)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t at = (guess + i) % s->n;
        if (strcmp(s->keys[at], key) == 0 && shm_counters_width(s, at) == width)
            return at;
    }
    return SHM_COUNTERS_VALUES;
}

size_t shm_counters_series(struct shm_counters *s, const char *key, size_t width, size_t guess)
{
    size_t at = find(s, key, width, guess);
    if (at < SHM_COUNTERS_VALUES)
        return at;
    if (strlen(key) >= SHM_COUNTERS_KEY || width > SHM_COUNTERS_VALUES - s->n)
        return SHM_COUNTERS_VALUES;
    at = s->n;
    memset(s->values + at, 0, width * sizeof(s->values[0]));
    memset(s->keys + at, 0, width * sizeof(s->keys[0]));
    strcpy(s->keys[at], key);
    __atomic_store_n(&s->n, (uint32_t)(at + width), __ATOMIC_RELEASE);
    return at;
}

bool shm_counters_key_is(const char *key, const char *metric)
{
    size_t len = strlen(metric);
    return strncmp(key, metric, len) == 0 && (key[len] == '\0' || key[len] == '{');
}

static bool ends_in(const char *key, const char *suffix)
{
    size_t name = strcspn(key, "{"), len = strlen(suffix);
    return name > len && memcmp(key + name - len, suffix, len) == 0;
}

static bool is_time(const char *key)
{
    return ends_in(key, "_timestamp_seconds");
}

static bool is_total(const char *key, size_t width)
{
    return width > 1 || ends_in(key, "_total") || is_time(key);
}

/* Times are not added up: the latest one remains. */
static int64_t fold_value(const char *key, int64_t a, int64_t b)
{
    return is_time(key) ? max64(a, b) : a + b;
}

bool shm_counters_fold(struct shm_counters *into, const struct shm_counters *from,
                       enum shm_counters_part part)
{
    char key[SHM_COUNTERS_KEY];
    size_t n = used_of(from), width;
    bool whole = true;
    for (size_t at = 0; at < n; at += width) {
        width = width_up_to(from, at, n);
        memcpy(key, from->keys[at], SHM_COUNTERS_KEY);
        key[SHM_COUNTERS_KEY - 1] = '\0';
        if (part == SHM_COUNTERS_TOTALS && !is_total(key, width))
            continue;
        size_t to = shm_counters_series(into, key, width, at);
        whole &= to < SHM_COUNTERS_VALUES;
        for (size_t i = 0; to < SHM_COUNTERS_VALUES && i < width; i++) {
            int64_t value = __atomic_load_n(&from->values[at + i], __ATOMIC_RELAXED);
            series_set(&into->values[to + i], fold_value(key, into->values[to + i], value));
        }
    }
    return whole;
}

/* ---- the page ---- */

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

static int64_t nothing[STAT_HISTOGRAM]; /* receives the updates of lost series */

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

static int map_slots(int fd, int slot)
{
    size_t size = (size_t)SLOT_SIZE * (slot == STATS_MASTER_SLOT ? STATS_SLOTS : 1);
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)SLOT_SIZE * slot);
    if (map == MAP_FAILED)
        return -errno;
    page = slot == STATS_MASTER_SLOT ? map : NULL;
    own = map;
    return 0;
}

int stats_attach(int fd, int slot)
{
    int result = slot < 0 || slot >= STATS_SLOTS ? -EINVAL : map_slots(fd, slot);
    if (result == 0)
        open_own();
    return result;
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
    uint32_t layout;
    if (fstat(fd, &st) < 0 || st.st_size != (off_t)SLOT_SIZE * STATS_SLOTS ||
        pread(fd, &layout, sizeof(layout), offsetof(struct shm_counters, layout)) != sizeof(layout) ||
        layout != SHM_COUNTERS_LAYOUT || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -EINVAL;
    int result = map_slots(fd, STATS_MASTER_SLOT);
    if (result == 0)
        keep_totals();
    return result;
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
    buf_addf(key, "%s=\"", name);
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
    for (const char *const *label = labels; *label != NULL; label += 2) {
        buf_putc(&key, label == labels ? '{' : ',');
        add_label(&key, label[0], label[1]);
    }
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
    stat_set(STAT_SERIES_LOST, 1);
    return nothing;
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

static struct shm_counters *counters_of(int slot)
{
    return (struct shm_counters *)(void *)(page + (size_t)SLOT_SIZE * (size_t)slot);
}

void stats_beat(void)
{
    series_set(&own->beats, own->beats + 1);
}

int64_t stats_beats(int slot)
{
    return __atomic_load_n(&counters_of(slot)->beats, __ATOMIC_RELAXED);
}

void stats_fold(int slot)
{
    shm_counters_fold(own, counters_of(slot), SHM_COUNTERS_TOTALS);
    shm_counters_reset(counters_of(slot));
}

void stats_sum_of(int slot, struct shm_counters *ret)
{
    shm_counters_reset(ret);
    if (page != NULL && slot >= 0)
        shm_counters_fold(ret, counters_of(slot), SHM_COUNTERS_ALL);
}

void stats_sum(struct shm_counters *ret)
{
    shm_counters_reset(ret);
    bool whole = true;
    for (int slot = 0; page != NULL && slot < STATS_SLOTS; slot++)
        whole &= shm_counters_fold(ret, counters_of(slot), SHM_COUNTERS_ALL);
    if (!whole)
        ret->values[STAT_SERIES_LOST]++;
}

int64_t stat_read(const struct shm_counters *sum, enum stat_id which)
{
    return which < sum->n ? sum->values[which] : 0; /* the master's rows come first in it */
}

int64_t series_read_of(const struct shm_counters *sum, enum family_id family, const char *const *labels)
{
    char key[SHM_COUNTERS_KEY];
    size_t at = make_key(family, labels, key) ? find(sum, key, 1, 0) : SHM_COUNTERS_VALUES;
    return at < SHM_COUNTERS_VALUES ? sum->values[at] : 0;
}

/* ---- the most watched tasks ---- */

enum { ID_SHOWN = 6 };

static void offer_name(struct top_tasks_list *list, const char *name, int64_t watchers)
{
    size_t at = list->n;
    while (at > 0 && list->tasks[at - 1].watchers < watchers)
        at--;
    if (at == TOP_TASKS_MAX)
        return;
    size_t behind = (list->n < TOP_TASKS_MAX ? list->n : TOP_TASKS_MAX - 1) - at;
    memmove(&list->tasks[at + 1], &list->tasks[at], behind * sizeof(list->tasks[0]));
    snprintf(list->tasks[at].name, TOP_TASKS_NAME, "%s", name);
    list->tasks[at].watchers = watchers;
    list->n = at + behind + 1;
}

void top_tasks_offer(struct top_tasks_list *list, const char *provider, const char *id, int64_t watchers)
{
    char name[TOP_TASKS_NAME];
    size_t len = strlen(id), shown = len > ID_SHOWN ? ID_SHOWN : len / 2;
    if (list->n == TOP_TASKS_MAX && watchers <= list->tasks[TOP_TASKS_MAX - 1].watchers)
        return;
    snprintf(name, sizeof(name), "%.40s/%.*s…", provider, (int)shown, id);
    offer_name(list, name, watchers);
}

void top_tasks_merge(struct top_tasks_list *list, const struct top_tasks_list *other)
{
    for (size_t i = 0; i < other->n; i++)
        offer_name(list, other->tasks[i].name, other->tasks[i].watchers);
}

void top_tasks_write(struct top_tasks_board *board, const struct top_tasks_list *list)
{
    __atomic_store_n(&board->version, board->version | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    board->list = *list;
    __atomic_store_n(&board->version, board->version + 1, __ATOMIC_RELEASE);
}

bool top_tasks_read(const struct top_tasks_board *board, struct top_tasks_list *ret_list)
{
    uint32_t version = __atomic_load_n(&board->version, __ATOMIC_ACQUIRE);
    *ret_list = board->list;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (version % 2 != 0 || version != __atomic_load_n(&board->version, __ATOMIC_RELAXED))
        return false;
    if (ret_list->n > TOP_TASKS_MAX)
        ret_list->n = TOP_TASKS_MAX;
    for (size_t i = 0; i < ret_list->n; i++)
        ret_list->tasks[i].name[TOP_TASKS_NAME - 1] = '\0';
    return true;
}

void stats_publish_watched(const struct top_tasks_list *list)
{
    top_tasks_write(&own->board, list);
}

void stats_watched(struct top_tasks_list *ret)
{
    struct top_tasks_list list;
    *ret = (struct top_tasks_list){0};
    for (int slot = 0; page != NULL && slot < STATS_SLOTS; slot++) {
        if (top_tasks_read(&counters_of(slot)->board, &list))
            top_tasks_merge(ret, &list);
    }
}
