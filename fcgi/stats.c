/* stats: see stats.h. */
#include "stats.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct slot {
    int64_t values[STAT_COUNT];
    int64_t beats;
} __attribute__((aligned(64)));

enum stat_type { counter, gauge };

struct row {
    enum stat_type type;
    const char *metric;
    const char *labels; /* "" for none */
    const char *help;   /* NULL: a further row of the metric above */
};

#define STATS_ROW(id, type, metric, labels, help) {type, metric, labels, help},
static const struct row rows[] = {STATS(STATS_ROW)};

static struct slot nowhere; /* counted into until a page is attached */
static struct slot *page;
static struct slot *own = &nowhere;

int stats_create(void)
{
    int fd = memfd_create("taskproxy-stats", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, sizeof(struct slot) * STATS_SLOTS) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int stats_attach(int fd, int slot)
{
    if (slot < 0 || slot >= STATS_SLOTS)
        return -EINVAL;
    void *map = mmap(NULL, sizeof(struct slot) * STATS_SLOTS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    page = map;
    own = &page[slot];
    return 0;
}

void stat_add(enum stat_id which, int64_t n)
{
    /* One writer a slot: a relaxed store that a reader never sees torn is enough. */
    __atomic_store_n(&own->values[which], own->values[which] + n, __ATOMIC_RELAXED);
}

void stat_set(enum stat_id which, int64_t value)
{
    __atomic_store_n(&own->values[which], value, __ATOMIC_RELAXED);
}

int64_t stat_get(enum stat_id which)
{
    return own->values[which];
}

static int64_t read_value(const struct slot *slot, size_t which)
{
    return __atomic_load_n(&slot->values[which], __ATOMIC_RELAXED);
}

void stat_answer(int http_status)
{
    static const enum stat_id classes[] = {STAT_ANSWERS_2XX, STAT_ANSWERS_3XX, STAT_ANSWERS_4XX,
                                           STAT_ANSWERS_5XX};
    stat_inc(classes[http_status / 100 - 2]);
}

void stats_beat(void)
{
    __atomic_store_n(&own->beats, own->beats + 1, __ATOMIC_RELAXED);
}

int64_t stats_beats(int slot)
{
    return __atomic_load_n(&page[slot].beats, __ATOMIC_RELAXED);
}

void stats_fold(int slot)
{
    for (size_t i = 0; i < STAT_COUNT; i++) {
        if (rows[i].type == counter)
            stat_add((enum stat_id)i, read_value(&page[slot], i));
    }
    memset(&page[slot], 0, sizeof(page[slot]));
}

void stats_print(struct buf *out)
{
    static const char *const type_names[] = {[counter] = "counter", [gauge] = "gauge"};
    for (size_t i = 0; i < STAT_COUNT; i++) {
        const struct row *row = &rows[i];
        int64_t sum = 0;
        for (int slot = 0; page != NULL && slot < STATS_SLOTS; slot++)
            sum += read_value(&page[slot], i);
        if (row->help != NULL) {
            buf_addf(out, "# HELP taskproxy_%s %s.\n", row->metric, row->help);
            buf_addf(out, "# TYPE taskproxy_%s %s\n", row->metric, type_names[row->type]);
        }
        bool labelled = row->labels[0] != '\0';
        buf_addf(out, "taskproxy_%s%s%s%s %lld\n", row->metric, labelled ? "{" : "", row->labels,
                 labelled ? "}" : "", (long long)sum);
    }
}
