/* shm_counters: see shm_counters.h. */
#include "lib/shm_counters.h"

#include <string.h>

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

static size_t find(const struct shm_counters *s, const char *key, size_t width, size_t guess)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t at = (guess + i) % s->n;
        if (strcmp(s->keys[at], key) == 0 && shm_counters_width(s, at) == width)
            return at;
    }
    return SHM_COUNTERS_VALUES;
}

int64_t shm_counters_value(const struct shm_counters *s, const char *key)
{
    for (size_t at = 0; at < s->n; at++) {
        if (strcmp(s->keys[at], key) == 0)
            return s->values[at];
    }
    return 0;
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

static bool is_total(const char *key, size_t width)
{
    static const char suffix[] = "_total";
    size_t name = strcspn(key, "{"), len = sizeof(suffix) - 1;
    return width > 1 || (name > len && memcmp(key + name - len, suffix, len) == 0);
}

void shm_counters_fold(struct shm_counters *into, const struct shm_counters *from,
                       enum shm_counters_part part)
{
    char key[SHM_COUNTERS_KEY];
    size_t n = used_of(from), width;
    for (size_t at = 0; at < n; at += width) {
        width = width_up_to(from, at, n);
        memcpy(key, from->keys[at], SHM_COUNTERS_KEY);
        key[SHM_COUNTERS_KEY - 1] = '\0';
        if (part == SHM_COUNTERS_TOTALS && !is_total(key, width))
            continue;
        size_t to = shm_counters_series(into, key, width, at);
        for (size_t i = 0; to < SHM_COUNTERS_VALUES && i < width; i++)
            shm_counters_add(into, to + i, __atomic_load_n(&from->values[at + i], __ATOMIC_RELAXED));
    }
}
