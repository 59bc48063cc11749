/* sheet: see sheet.h. */
#include "sheet.h"

#include <string.h>

void sheet_reset(struct sheet *s)
{
    s->n = 0;
    s->beats = 0;
    s->board = (struct watched_board){0};
    s->layout = SHEET_LAYOUT;
}

static size_t used_of(const struct sheet *s)
{
    size_t n = __atomic_load_n(&s->n, __ATOMIC_ACQUIRE);
    return s->layout != SHEET_LAYOUT ? 0 : n < SHEET_VALUES ? n : SHEET_VALUES;
}

static size_t width_up_to(const struct sheet *s, size_t at, size_t end)
{
    size_t width = 1;
    while (at + width < end && s->keys[at + width][0] == '\0')
        width++;
    return width;
}

size_t sheet_width(const struct sheet *s, size_t at)
{
    return width_up_to(s, at, used_of(s));
}

static size_t find(const struct sheet *s, const char *key, size_t width, size_t guess)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t at = (guess + i) % s->n;
        if (strcmp(s->keys[at], key) == 0 && sheet_width(s, at) == width)
            return at;
    }
    return SHEET_VALUES;
}

int64_t sheet_value(const struct sheet *s, const char *key)
{
    for (size_t at = 0; at < s->n; at++) {
        if (strcmp(s->keys[at], key) == 0)
            return s->values[at];
    }
    return 0;
}

size_t sheet_series(struct sheet *s, const char *key, size_t width, size_t guess)
{
    size_t at = find(s, key, width, guess);
    if (at < SHEET_VALUES)
        return at;
    if (strlen(key) >= SHEET_KEY || width > SHEET_VALUES - s->n)
        return SHEET_VALUES;
    at = s->n;
    memset(s->values + at, 0, width * sizeof(s->values[0]));
    memset(s->keys + at, 0, width * sizeof(s->keys[0]));
    strcpy(s->keys[at], key);
    __atomic_store_n(&s->n, (uint32_t)(at + width), __ATOMIC_RELEASE);
    return at;
}

bool sheet_key_is(const char *key, const char *metric)
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

void sheet_fold(struct sheet *into, const struct sheet *from, enum sheet_part part)
{
    char key[SHEET_KEY];
    size_t n = used_of(from), width;
    for (size_t at = 0; at < n; at += width) {
        width = width_up_to(from, at, n);
        memcpy(key, from->keys[at], SHEET_KEY);
        key[SHEET_KEY - 1] = '\0';
        if (part == SHEET_TOTALS && !is_total(key, width))
            continue;
        size_t to = sheet_series(into, key, width, at);
        for (size_t i = 0; to < SHEET_VALUES && i < width; i++)
            sheet_add(into, to + i, __atomic_load_n(&from->values[at + i], __ATOMIC_RELAXED));
    }
}
