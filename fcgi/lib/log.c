/* log: see log.h. */
#include "lib/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/sanitize.h"
#include "lib/stats.h"
#include "lib/trace.h"

static enum log_level least_level = LOG_INFO;
static enum log_format line_format = LOG_TEXT;
static bool to_journal;
static char process_name[32];
static struct log_ratelimit ratelimit;

static int log_fd = STDERR_FILENO; /* or a non-blocking descriptor of the same pipe or terminal */

/* Lines that standard error has not accepted yet. Part of the first one may have been written. */
static char backlog[LOG_BACKLOG_MAX];
static size_t backlog_len;
static int64_t dropped; /* lines, not reported yet */

/* ---- the form of a line ---- */

static const char *const level_names[] = {"debug", "info", "warn", "error", "audit"};

/* sd-daemon(3): SD_DEBUG and so on. */
static const char *const journal_levels[] = {"<7>", "<6>", "<4>", "<3>", "<5>"};

static void add_time(struct buf *b, int64_t now_ms)
{
    char text[32];
    utc_text(now_ms / 1000, text);
    buf_addf(b, "%.19s.%03dZ", text, (int)(now_ms % 1000));
}

static void add_text(struct buf *b, bool for_journal, const struct log_entry *line)
{
    if (!for_journal) {
        add_time(b, line->now_ms);
        buf_addf(b, " %s ", level_names[line->level]);
    }
    if (line->process[0] != '\0')
        buf_addf(b, "%s: ", line->process);
    buf_puts(b, line->message);
    if (line->repeated == 1)
        buf_puts(b, " (repeated once)");
    else if (line->repeated > 1)
        buf_addf(b, " (repeated %lld times)", (long long)line->repeated);
    if (line->audit != NULL)
        buf_addf(b, " team=%s request=%s task=%s", line->audit->team, line->audit->request_id,
                 line->audit->task);
    if (line->trace != NULL)
        buf_addf(b, " trace=%s", line->trace);
}

static void add_member(struct buf *b, const char *name, const char *value)
{
    buf_addf(b, "\"%s\":", name);
    buf_add_json_string(b, value, strlen(value));
    buf_putc(b, ',');
}

static void add_json(struct buf *b, const struct log_entry *line)
{
    buf_puts(b, "{\"time\":\"");
    add_time(b, line->now_ms);
    buf_puts(b, "\",");
    add_member(b, "level", level_names[line->level]);
    if (line->process[0] != '\0')
        add_member(b, "process", line->process);
    buf_addf(b, "\"pid\":%d,", line->pid);
    if (line->repeated > 0)
        buf_addf(b, "\"repeated\":%lld,", (long long)line->repeated);
    if (line->trace != NULL)
        add_member(b, "traceparent", line->trace);
    if (line->audit != NULL) {
        add_member(b, "team", line->audit->team);
        add_member(b, "request_id", line->audit->request_id);
        add_member(b, "task", line->audit->task);
    }
    add_member(b, "message", line->message);
    b->data[b->len - 1] = '}'; /* replaces the last comma */
}

size_t log_format_entry(enum log_format format, bool for_journal, const struct log_entry *line,
                        char out[static LOG_LINE_MAX])
{
    struct buf b;
    buf_init(&b, LOG_LINE_MAX - 1);
    if (for_journal)
        buf_puts(&b, journal_levels[line->level]);
    if (format == LOG_JSON)
        add_json(&b, line);
    else
        add_text(&b, for_journal, line);
    size_t len = b.len;
    memcpy(out, b.data, len);
    buf_done(&b);
    out[len] = '\n';
    return len + 1;
}

/* ---- repetitions and floods ---- */

/* Also after its time, while its report is due. */
static bool is_repeated(const struct log_ratelimit *f, enum log_level level, const char *message,
                        int64_t now_ms)
{
    return (now_ms < f->until_ms || f->repeats > 0) && level == f->level && strcmp(message, f->last) == 0;
}

static bool has_room(struct log_ratelimit *f, enum log_level level, int64_t now_ms)
{
    if (now_ms - f->second_ms >= LOG_RATELIMIT_SECOND_MS) {
        f->second_ms = now_ms;
        memset(f->passed, 0, sizeof(f->passed));
    }
    return f->passed[level]++ < LOG_RATELIMIT_PER_SECOND;
}

static void suppress(struct log_ratelimit *f)
{
    if (f->dropped++ == 0)
        f->report_dropped_ms = f->second_ms + LOG_RATELIMIT_SECOND_MS;
}

bool log_ratelimit_take(struct log_ratelimit *f, enum log_level level, const char *message, int64_t now_ms)
{
    if (is_repeated(f, level, message, now_ms))
        f->repeats++;
    else if (!has_room(f, level, now_ms))
        suppress(f);
    else
        return true;
    return false;
}

void log_ratelimit_wrote(struct log_ratelimit *f, enum log_level level, const char *message, int64_t now_ms)
{
    snprintf(f->last, sizeof(f->last), "%s", message);
    f->level = level;
    f->until_ms = now_ms + LOG_RATELIMIT_REPEAT_MS;
}

bool log_ratelimit_report(struct log_ratelimit *f, enum log_ratelimit_when when, int64_t now_ms,
                          struct log_ratelimit_report *ret)
{
    if (f->repeats > 0 && (when != LOG_RATELIMIT_TICK || now_ms >= f->until_ms)) {
        *ret = (struct log_ratelimit_report){.message = f->last, .level = f->level, .n = f->repeats};
        f->repeats = 0;
        f->until_ms = now_ms + LOG_RATELIMIT_REPEAT_MS;
        return true;
    }
    if (f->dropped > 0 && (when == LOG_RATELIMIT_END || now_ms >= f->report_dropped_ms)) {
        *ret = (struct log_ratelimit_report){.level = LOG_WARN, .n = f->dropped};
        f->dropped = 0;
        return true;
    }
    return false;
}

bool log_once(struct log_once *once, const char *text, int64_t now_ms)
{
    size_t i = 0, oldest = 0;
    for (; i < once->n && strncmp(once->texts[i].text, text, LOG_ONCE_TEXT - 1) != 0; i++) {
        if (once->texts[i].at_ms < once->texts[oldest].at_ms)
            oldest = i;
    }
    if (i == LOG_ONCE_MAX)
        i = oldest;
    if (i < once->n && (once->again_ms == 0 || now_ms - once->texts[i].at_ms < once->again_ms))
        return false;
    snprintf(once->texts[i].text, LOG_ONCE_TEXT, "%s", text);
    once->texts[i].at_ms = now_ms;
    if (i == once->n)
        once->n++;
    return true;
}

/* ---- writing without blocking ---- */

/* A regular file must not be opened again, because the writers share its offset; a socket cannot be. */
static void open_own(void)
{
    struct stat st;
    if (fstat(STDERR_FILENO, &st) < 0 || S_ISREG(st.st_mode))
        return;
    int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        log_fd = fd;
}

/* Returns the number of bytes written, or a negative errno. */
static ssize_t write_now(const char *text, size_t len)
{
    ssize_t n = send(log_fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == ENOTSOCK) {
        if (!is_writable(log_fd, 0))
            return -EAGAIN;
        n = write(log_fd, text, len);
    }
    return n < 0 ? -errno : n;
}

/* Returns 0 if everything is written, or a negative errno. */
static int flush(void)
{
    size_t done = 0;
    ssize_t n = 1;
    while (done < backlog_len && n > 0) {
        const char *line = backlog + done, *end = memchr(line, '\n', backlog_len - done);
        n = write_now(line, (size_t)(end + 1 - line));
        done += n > 0 ? (size_t)n : 0;
    }
    backlog_len -= done;
    memmove(backlog, backlog + done, backlog_len);
    return n < 0 ? (int)n : 0;
}

static void drop(void)
{
    dropped++;
    stat_inc(STAT_LOG_DROPPED);
}

/* Once a line is dropped, so are all others until their number is reported: one report covers one gap. */
static void append(const char *text, size_t len)
{
    if (dropped > 0 || len > LOG_BACKLOG_MAX - backlog_len)
        return drop();
    memcpy(backlog + backlog_len, text, len);
    backlog_len += len;
}

/* ---- the process ---- */

/* Whether standard error is still the stream that systemd connected to the journal: it may have been redirected. */
static bool is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_setup(enum log_level least, enum log_format format, const char *process)
{
    static bool opened;
    least_level = least;
    line_format = format;
    to_journal = is_journal();
    snprintf(process_name, sizeof(process_name), "%s", process ? process : "");
    if (opened)
        return;
    opened = true;
    open_own();
    (void)atexit(log_finish);
}

bool log_wants(enum log_level level)
{
    return level >= least_level;
}

static void append_entry(struct log_entry line)
{
    const struct trace trace = trace_now();
    line.now_ms = wall_ms();
    line.process = process_name;
    line.pid = getpid();
    /* repetitions belong to other traces */
    line.trace = line.repeated == 0 && trace.parent[0] ? trace.parent : NULL;
    char text[LOG_LINE_MAX];
    size_t len = log_format_entry(line_format, to_journal, &line, text);
    append(text, len);
}

/* Writes the backlog, then the report of dropped lines. Returns 0, or a negative errno. */
static int catch_up(void)
{
    char text[96];
    int bad = flush();
    if (bad < 0 || dropped == 0)
        return bad;
    snprintf(text, sizeof(text), "%lld log lines dropped: standard error did not accept them",
             (long long)dropped);
    dropped = 0;
    append_entry((struct log_entry){.level = LOG_WARN, .message = text});
    return flush();
}

static void write_entry(struct log_entry line)
{
    if (dropped > 0)
        (void)catch_up();
    append_entry(line);
    (void)flush();
}

static void write_line(enum log_level level, const char *message, int64_t repeated)
{
    write_entry((struct log_entry){.level = level, .message = message, .repeated = repeated});
}

void log_audit(const struct log_audit *audit)
{
    char task[LOG_MESSAGE_MAX];
    struct log_audit safe = *audit;
    sanitize_copy(task, sizeof(task), audit->task, strlen(audit->task));
    safe.task = task;
    write_entry((struct log_entry){.level = LOG_AUDIT, .message = audit->event, .audit = &safe});
}

static void report(enum log_ratelimit_when when)
{
    struct log_ratelimit_report r;
    char text[96];
    while (log_ratelimit_report(&ratelimit, when, monotonic_ms(), &r)) {
        snprintf(text, sizeof(text), "%lld lines suppressed: more than %d of one level in one second",
                 (long long)r.n, LOG_RATELIMIT_PER_SECOND);
        write_line(r.level, r.message ? r.message : text, r.message ? r.n : 0);
    }
}

void log_line(enum log_level level, const char *format, ...)
{
    char raw[LOG_MESSAGE_MAX], message[LOG_MESSAGE_MAX];
    va_list args;
    if (!log_wants(level))
        return;
    va_start(args, format);
    vsnprintf(raw, sizeof(raw), format, args);
    va_end(args);
    sanitize_copy(message, sizeof(message), raw, strlen(raw));
    if (level == LOG_DEBUG)
        return write_line(level, message, 0); /* debug lines are never suppressed */
    int64_t now_ms = monotonic_ms();
    if (!log_ratelimit_take(&ratelimit, level, message, now_ms))
        return;
    report(LOG_RATELIMIT_LINE);
    log_ratelimit_wrote(&ratelimit, level, message, now_ms);
    write_line(level, message, 0);
}

void log_tick(void)
{
    report(LOG_RATELIMIT_TICK);
    (void)catch_up();
}

void log_finish(void)
{
    report(LOG_RATELIMIT_END);
    int64_t left_ms, end_ms = monotonic_ms() + LOG_FINISH_MS;
    while (catch_up() == -EAGAIN && (left_ms = end_ms - monotonic_ms()) > 0 &&
           is_writable(log_fd, (int)left_ms))
        ;
    for (size_t i = 0; i < backlog_len; i++) {
        if (backlog[i] == '\n')
            drop();
    }
    backlog_len = 0;
}
