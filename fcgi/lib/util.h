/* util: allocation, time, text, digests.
 *
 * Small allocations abort when memory is exhausted; everything that outsiders can grow has a limit elsewhere. */
#ifndef UTIL_H
#define UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct uv_handle_s;
struct uv_loop_s;

#define NELEMS(array) (sizeof(array) / sizeof((array)[0]))
#define MUST_CHECK    __attribute__((warn_unused_result))
#define NEVER_NULL    __attribute__((returns_nonnull))
#define PRINTF(f, a)  __attribute__((format(printf, f, a)))

/* The object that holds an embedded member. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Never return NULL; the caller frees. xcalloc zeroes. */
void *xcalloc(size_t n, size_t size) NEVER_NULL;
void *xrealloc(void *old, size_t size) NEVER_NULL;
char *xstrdup(const char *text) NEVER_NULL;
char *xstrndup(const char *text, size_t len) NEVER_NULL;
char *xasprintf(const char *format, ...) PRINTF(1, 2) NEVER_NULL;

int64_t min64(int64_t a, int64_t b);
int64_t max64(int64_t a, int64_t b);

/* Whole seconds, at least 0. */
int64_t seconds_up(int64_t ms);
int64_t seconds_down(int64_t ms);

/* Milliseconds since 1970, by the wall clock. */
int64_t wall_ms(void);

/* Milliseconds since some moment, by a clock that cannot be set. Unlike the loop's time, it is never out of date. */
int64_t monotonic_ms(void);

/* A moment by two clocks. The wall clock may be set at any time and differs between hosts, so it serves for dates
 * alone; intervals are measured by the loop's clock. */
struct moment {
    int64_t ms;      /* loop time */
    int64_t date_ms; /* since 1970 */
};

struct moment moment_now(const struct uv_loop_s *loop);

/* Closes a handle of libuv. Then, in a later loop iteration, frees the object, which may contain the handle. */
void close_and_free(struct uv_handle_s *handle, void *object);

/* "250ms", "10s", "2m", "24h", "7d" to milliseconds; "64KiB", "4MiB", "1GiB", "512B" to bytes. */
MUST_CHECK int parse_duration(const char *text, int64_t *ret_ms);
MUST_CHECK int parse_size(const char *text, int64_t *ret_bytes);

/* The inverse, in the largest unit that loses nothing. */
void format_duration(int64_t ms, char out[static 32]);
void format_size(int64_t bytes, char out[static 32]);

/* Parses the whole of `text` as a decimal integer. */
MUST_CHECK int parse_int(const char *text, int64_t *ret);

/* Seconds since 1970 as a date of RFC 3339 ("2025-01-14T15:15:46Z"). */
void utc_text(int64_t unix_seconds, char out[static 32]);

/* The word most similar to `text`, of `words` separated by '|'; NULL if none is similar.
 * The result is allocated. */
char *nearest_word(const char *text, const char *words);

/* Whether all bytes are visible ASCII characters, which excludes spaces. */
bool is_visible(const char *text, size_t len);

/* Lower-case hex; `out` holds 2 * len + 1 bytes. */
void hex_encode(const void *data, size_t len, char *out);

/* SHA-256 of `data`. */
void sha256(const void *data, size_t len, unsigned char out[static 32]);

/* Its first `n_digits` lower-case hex digits, at most 64 and an even number, and a NUL. */
void sha256_hex(const void *data, size_t len, size_t n_digits, char *out);

/* `len` random bytes from the kernel, at most 256. After a fork without exec, parent and child would get the same ones. */
void random_bytes(void *out, size_t len);

/* Whether a write to the descriptor would succeed or fail at once rather than block, now or within the time. */
bool is_writable(int fd, int within_ms);

/* Read or write `len` bytes, continuing after EINTR and short counts; read_full stops at the end of the file. A negative
 * errno on failure. */
MUST_CHECK long read_full(int fd, void *out, size_t len);
MUST_CHECK int write_full(int fd, const void *data, size_t len);

#endif
