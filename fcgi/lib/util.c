/* util: see util.h. */
#include "lib/util.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/sha.h>
#include <uv.h>

static void *must(void *ptr)
{
    if (ptr == NULL) {
        if (is_writable(STDERR_FILENO, 0)) /* a process that blocks here is never replaced */
            fputs("taskproxy: out of memory\n", stderr);
        abort();
    }
    return ptr;
}

void *xcalloc(size_t n, size_t size)
{
    return must(calloc(n ? n : 1, size ? size : 1));
}

void *xrealloc(void *old, size_t size)
{
    return must(realloc(old, size ? size : 1));
}

char *xstrdup(const char *text)
{
    return must(strdup(text));
}

char *xstrndup(const char *text, size_t len)
{
    return must(strndup(text, len));
}

char *xasprintf(const char *format, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    return must(text);
}

int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t seconds_up(int64_t ms)
{
    return ms <= 0 ? 0 : (ms + 999) / 1000;
}

int64_t seconds_down(int64_t ms)
{
    return ms <= 0 ? 0 : ms / 1000;
}

int64_t wall_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t monotonic_ms(void)
{
    return (int64_t)(uv_hrtime() / 1000000);
}

struct moment moment_now(const struct uv_loop_s *loop)
{
    return (struct moment){.ms = (int64_t)uv_now(loop), .date_ms = wall_ms()};
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void close_and_free(uv_handle_t *handle, void *object)
{
    handle->data = object;
    uv_close(handle, on_closed);
}

struct unit {
    const char *name; /* NULL behind the last */
    int64_t factor;
};

/* The largest first. */
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};
static const struct unit durations[] = {
    {"d", 24 * 3600 * 1000}, {"h", 3600 * 1000}, {"m", 60 * 1000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
static const struct unit sizes[] = {
    {"GiB", 1024 * 1024 * 1024}, {"MiB", 1024 * 1024}, {"KiB", 1024}, {"B", 1}, {NULL, 0}};

/* Parses a whole number followed by one of the units. */
static int parse_with_unit(const char *text, const struct unit *unit, int64_t *ret)
{
    if (!isdigit((unsigned char)text[0]))
        return -1;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    while (unit->name != NULL && strcmp(end, unit->name) != 0)
        unit++;
    if (errno != 0 || unit->name == NULL || number > INT64_MAX / unit->factor)
        return -1;
    *ret = number * unit->factor;
    return 0;
}

static void format_with_unit(int64_t value, const struct unit *unit, char out[static 32])
{
    while (unit->factor > 1 && (value == 0 || value % unit->factor != 0))
        unit++;
    snprintf(out, 32, "%lld%s", (long long)(value / unit->factor), unit->name);
}

int parse_int(const char *text, int64_t *ret)
{
    return parse_with_unit(text, no_units, ret);
}

int parse_duration(const char *text, int64_t *ret_ms)
{
    return parse_with_unit(text, durations, ret_ms);
}

int parse_size(const char *text, int64_t *ret_bytes)
{
    return parse_with_unit(text, sizes, ret_bytes);
}

void format_duration(int64_t ms, char out[static 32])
{
    format_with_unit(ms, durations, out);
}

void format_size(int64_t bytes, char out[static 32])
{
    format_with_unit(bytes, sizes, out);
}

void utc_text(int64_t unix_seconds, char out[static 32])
{
    time_t t = (time_t)unix_seconds;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
}

/* The length of the longer word without the start and the end that both have: small after one typing error. */
static size_t difference(const char *a, const char *b, size_t b_len)
{
    size_t a_len = strlen(a);
    for (; a_len > 0 && b_len > 0 && *a == *b; a_len--, b_len--) {
        a++;
        b++;
    }
    for (; a_len > 0 && b_len > 0 && a[a_len - 1] == b[b_len - 1]; a_len--)
        b_len--;
    return a_len > b_len ? a_len : b_len;
}

char *nearest_word(const char *text, const char *words)
{
    const char *best = NULL;
    size_t best_len = 0, best_difference = strlen(text) / 2 + 2;
    for (const char *word = words; *word != '\0';) {
        size_t len = strcspn(word, "|"), d = difference(text, word, len);
        if (d < best_difference) {
            best = word;
            best_len = len;
            best_difference = d;
        }
        word += len + (word[len] == '|');
    }
    return best == NULL ? NULL : xstrndup(best, best_len);
}

bool is_visible(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] >= 0x7f)
            return false;
    }
    return true;
}

void hex_encode(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

void sha256(const void *data, size_t len, unsigned char out[static 32])
{
    SHA256(data, len, out);
}

void sha256_hex(const void *data, size_t len, size_t n_digits, char *out)
{
    unsigned char digest[32];
    sha256(data, len, digest);
    hex_encode(digest, n_digits / 2, out);
}

/* Asks the kernel for several callers at once: a system call for each would be a noticeable part of a hit's time. */
void random_bytes(void *out, size_t len)
{
    static unsigned char pool[256];
    static size_t left;
    assert(len <= sizeof(pool));
    if (left < len) {
        if (getentropy(pool, sizeof(pool)) < 0)
            abort(); /* a kernel without getrandom(2) */
        left = sizeof(pool);
    }
    left -= len;
    memcpy(out, pool + left, len);
    explicit_bzero(pool + left, len); /* it may be a secret now */
}

bool is_writable(int fd, int within_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    return poll(&p, 1, within_ms) > 0;
}

long read_full(int fd, void *out, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = read(fd, (char *)out + got, len - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (long)got;
}

int write_full(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}
