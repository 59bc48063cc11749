/* follow: see follow.h.
 *
 *     query_task --> on_answer --> 200: show the view; when the task has ended: finish
 *          ^             |  '----> 304: nothing new
 *          |             '-------> failure: retry, unless it has lasted too long
 *          '--- after a pause
 *
 * Every query after the first has the ETag of the last view, and the server holds it until the view differs.
 *
 * The server may not be trustworthy: its answers are parsed strictly, and all text is sanitized where it is printed. */
#include "cli/follow.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "lib/address.h"
#include "lib/backoff.h"
#include "lib/files.h"
#include "lib/json.h"
#include "lib/sanitize.h"
#include "upstream/headers.h"
#include "upstream/http.h"

#define WAIT_S "30" /* how long the server is asked to hold a query */

enum {
    CONNECT_MS = 10 * 1000,
    ANSWER_MS = 45 * 1000, /* longer than the server holds a query */
    RETRY_FIRST_MS = 500,
    RETRY_MAX_MS = 15 * 1000,
    PATIENCE_FIRST_MS = 5 * 1000, /* before the server has answered at all */
    PATIENCE_MS = 5 * 60 * 1000,  /* since the last good answer */
    NEWS_MS = 100,                /* pause after a view that differs */
    SAME_MS = 1000,               /* pause after one that does not */
    REDRAW_MS = 1000,
    ETAG_MAX = 256,
    ANSWER_MAX = 4 * 1024 * 1024,
    MAX_DEPTH = 8,
    TEXT_MAX = 8192, /* a longer text is cut */
    TAIL_SIZE = 128, /* of the redrawn line, after the text */
    BAR_CELLS = 40,
    COLUMNS_UNKNOWN = 80,   /* of a terminal that does not know its width */
    URL_SIZE_MAX = 1 << 20, /* the kernel limits an argument to 128 KiB */
};

struct follow {
    uv_loop_t loop;
    struct http *http;
    struct http_call *call; /* the query in progress, or NULL */
    char *url;
    char *token;         /* in the vault, or NULL */
    char etag[ETAG_MAX]; /* of the last view; "" for none */
    enum state state;    /* of the task in the last view */
    int percent;         /* likewise; -1: unknown */
    char line[TEXT_MAX]; /* describes that view; "" before the first */
    enum follow_end end;
    struct backoff backoff;
    uint64_t patience_ms; /* for how long failures are tolerated */
    uint64_t begun_ms;    /* loop time */
    uint64_t good_ms;     /* time of the last good answer, likewise */
    bool is_terminal;     /* standard output is one */
    bool drawn;           /* it shows a line that will be redrawn */
    uv_timer_t next, redraw;
    uv_signal_t signals[2];
};

/* ---- the terminal's echo of control characters: "^C" would stay where the line was ---- */

static volatile sig_atomic_t echo_is_off; /* and this process turned it off */

/* Async-signal-safe. Turns on only what it has turned off. In the background, the settings are those of the shell. */
static void set_echo(bool on)
{
    struct termios settings;
    if (echo_is_off != on || tcgetpgrp(STDOUT_FILENO) != getpgrp() || tcgetattr(STDOUT_FILENO, &settings) < 0)
        return;
    tcflag_t flags = on ? settings.c_lflag | ECHOCTL : settings.c_lflag & ~(tcflag_t)ECHOCTL;
    if (flags == settings.c_lflag)
        return;
    settings.c_lflag = flags;
    echo_is_off = true; /* until the change has been undone: a signal may come at any time */
    tcsetattr(STDOUT_FILENO, TCSANOW, &settings);
    echo_is_off = !on;
}

/* A stopped process turns the echo off again when it redraws the line. */
static void on_exit_or_stop(int number)
{
    set_echo(true);
    if (number != SIGTSTP)
        signal(number, SIG_DFL);
    raise(number == SIGTSTP ? SIGSTOP : number); /* the default action, when this handler has returned */
}

static void protect_echo(void)
{
    static const int numbers[] = {SIGHUP, SIGQUIT, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTSTP};
    const struct sigaction action = {.sa_handler = on_exit_or_stop, .sa_flags = SA_RESTART};
    for (size_t i = 0; i < NELEMS(numbers); i++)
        sigaction(numbers[i], &action, NULL);
}

/* ---- output ---- */

/* To the first column, then erase the line (ECMA-48: EL). */
#define CLEAR_LINE "\r\033[K"

static void clear(struct follow *f)
{
    if (f->drawn)
        fputs(CLEAR_LINE, stdout);
    fflush(stdout);
    f->drawn = false;
    set_echo(true);
}

static void print_line(struct follow *f, FILE *to, const char *before, const char *text, const char *after)
{
    char clean[TEXT_MAX];
    clear(f);
    sanitize_copy(clean, sizeof(clean), text, strlen(text));
    fprintf(to, "%s%s%s\n", before, clean, after);
}

static int columns(void)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : COLUMNS_UNKNOWN;
}

/* "sora/task_1 running 42 %  1:05  [#######.........]", cut to fewer columns than the terminal has. */
static void draw(struct follow *f)
{
    static const char full[] = "########################################";
    static const char empty[] = "........................................";
    char text[TEXT_MAX];
    unsigned long long s = (uv_now(&f->loop) - f->begun_ms) / 1000;
    int done = f->percent < 0 ? 0 : f->percent * BAR_CELLS / 100;
    if (!f->is_terminal || f->line[0] == '\0')
        return;
    size_t n = sanitize_copy(text, TEXT_MAX - TAIL_SIZE, f->line, strlen(f->line));
    for (size_t i = 0; i < n; i++)
        text[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?'; /* so that each byte takes one column */
    snprintf(text + n, TAIL_SIZE, "  %llu:%02llu  [%.*s%.*s]", s / 60, s % 60, done, full, BAR_CELLS - done,
             empty);
    set_echo(false);
    printf(CLEAR_LINE "%.*s", columns() - 1, text);
    fflush(stdout);
    f->drawn = true;
}

static void on_redraw(uv_timer_t *timer)
{
    draw(CONTAINER_OF(timer, struct follow, redraw));
}

/* ---- a view ---- */

/* The text of a member; "" if there is none. */
static const char *text_of(struct json_object *object, const char *name)
{
    struct json_object *member = NULL;
    const char *text = json_member(object, name, &member) ? json_text(member) : NULL;
    return text ? text : "";
}

static int percent_of(struct json_object *view)
{
    struct json_object *member = NULL;
    if (!json_member(view, "progress", &member) || !json_object_is_type(member, json_type_int))
        return -1;
    int64_t percent = json_object_get_int64(member);
    return percent < 0 || percent > 100 ? -1 : (int)percent;
}

/* "sora/task_1 running 42 %", "sora/task_1 failed: the prompt was refused". */
static void describe(const struct follow *f, struct json_object *view, char out[static TEXT_MAX])
{
    const char *error = text_of(view, "error");
    char percent[16] = "";
    if (f->state == STATE_RUNNING && f->percent >= 0)
        snprintf(percent, sizeof(percent), " %d %%", f->percent);
    snprintf(out, TEXT_MAX, "%s/%s %s%s%s%s", text_of(view, "provider"), text_of(view, "task_id"),
             state_name(f->state), percent, error[0] != '\0' ? ": " : "", error);
}

/* The URL of a result that needs the upstream's key is a path of this server, which takes the same link as the task. */
static void print_result(struct follow *f, const char *url)
{
    const char *host = strstr(f->url, "://") + 3, *query = strchr(f->url, '?');
    bool is_path = url[0] == '/';
    char *origin = xstrndup(f->url, is_path ? (size_t)(host - f->url) + strcspn(host, "/?") : 0);
    print_line(f, stdout, origin, url, is_path && query != NULL ? query : "");
    free(origin);
}

static void print_results(struct follow *f, struct json_object *view)
{
    struct json_object *results = NULL;
    json_member(view, "results", &results);
    size_t n = json_object_is_type(results, json_type_array) ? json_object_array_length(results) : 0;
    for (size_t i = 0; i < n; i++) {
        const char *url = text_of(json_object_array_get_idx(results, i), "url");
        if (url[0] != '\0')
            print_result(f, url);
    }
}

/* In a terminal, a line that is redrawn, and one at the end; otherwise a line for each change. Results come last.
 * Returns false if the document is not a unified view. */
static bool show(struct follow *f, struct json_object *view)
{
    char line[TEXT_MAX];
    f->state = state_by_name(text_of(view, "status"));
    f->percent = percent_of(view);
    if (f->state == STATE_NONE || text_of(view, "provider")[0] == '\0')
        return false;
    describe(f, view, line);
    if (f->is_terminal ? state_ended(f->state) : strcmp(line, f->line) != 0)
        print_line(f, stdout, "", line, "");
    memcpy(f->line, line, sizeof(line));
    if (state_ended(f->state))
        print_results(f, view);
    else
        draw(f);
    return true;
}

/* ---- the end ---- */

/* Closes all handles, which ends the loop. */
static void finish(struct follow *f, enum follow_end end)
{
    f->end = end;
    clear(f);
    if (f->call != NULL)
        http_cancel(f->call);
    http_free(f->http);
    uv_close((uv_handle_t *)&f->next, NULL);
    uv_close((uv_handle_t *)&f->redraw, NULL);
    for (size_t i = 0; i < NELEMS(f->signals); i++)
        uv_close((uv_handle_t *)&f->signals[i], NULL);
}

static void fail(struct follow *f, enum follow_end end, const char *why)
{
    print_line(f, stderr, "taskproxy: ", why, "");
    finish(f, end);
}

static void on_interrupt(uv_signal_t *signal, int number)
{
    (void)number;
    finish(signal->data, FOLLOW_INTERRUPTED);
}

/* ---- answers ---- */

static void on_next(uv_timer_t *timer);

static void retry(struct follow *f, const char *why, int64_t retry_after_ms)
{
    bool is_first = f->backoff.last_ms == 0;
    int64_t ms = max64(backoff_next(&f->backoff), retry_after_ms);
    if (uv_now(&f->loop) + (uint64_t)ms > f->good_ms + f->patience_ms)
        return fail(f, FOLLOW_UNREACHED, why);
    if (is_first)
        print_line(f, stderr, "taskproxy: ", why, "; trying again");
    draw(f);
    uv_timer_start(&f->next, on_next, (uint64_t)ms, 0);
}

static void go_on(struct follow *f, int64_t after_ms)
{
    backoff_reset(&f->backoff);
    f->good_ms = uv_now(&f->loop);
    if (ferror(stdout))
        finish(f, FOLLOW_UNREACHED); /* the reader has closed the pipe */
    else if (state_ended(f->state))
        finish(f, f->state == STATE_SUCCEEDED ? FOLLOW_SUCCEEDED : FOLLOW_FAILED);
    else
        uv_timer_start(&f->next, on_next, (uint64_t)after_ms, 0);
}

static void take_view(struct follow *f, const struct http_answer *answer)
{
    struct json_error error;
    struct json_object *view = json_read(answer->body, answer->len, MAX_DEPTH, JSON_PLAIN, &error);
    bool is_view = show(f, view);
    json_object_put(view);
    if (!is_view)
        return fail(f, FOLLOW_UNREACHED,
                    "the answer is not a unified view of a task; is the server an older taskproxy?");
    const char *etag = answer->etag && strlen(answer->etag) < ETAG_MAX ? answer->etag : "";
    bool is_new = etag[0] != '\0' && strcmp(etag, f->etag) != 0;
    snprintf(f->etag, ETAG_MAX, "%s", etag);
    go_on(f, is_new ? NEWS_MS : SAME_MS + answer->retry_after_ms);
}

/* Prefers the server's explanation, if there is one. */
static void take_problem(struct follow *f, const struct http_answer *answer)
{
    struct json_error error;
    struct json_object *doc = json_read(answer->body, answer->len, MAX_DEPTH, JSON_PLAIN, &error);
    const char *detail = text_of(doc, "detail");
    char *why =
        detail[0] != '\0' ? xstrdup(detail) : xasprintf("the server answered with status %d", answer->status);
    json_object_put(doc);
    if (answer->status >= 500 || answer->status == 429)
        retry(f, why, answer->retry_after_ms);
    else
        fail(f, answer->status == 404 ? FOLLOW_UNKNOWN : FOLLOW_UNREACHED, why);
    free(why);
}

static void on_answer(void *user, const struct http_answer *answer)
{
    struct follow *f = user;
    f->call = NULL;
    if (answer->outcome != OUTCOME_OK)
        return retry(f, answer->why, 0);
    f->patience_ms = PATIENCE_MS;
    if (answer->status == 200)
        take_view(f, answer);
    else if (answer->status == 304)
        go_on(f, SAME_MS);
    else
        take_problem(f, answer);
}

/* ---- queries ---- */

static void query_task(struct follow *f)
{
    struct buf headers;
    buf_init_secret(&headers, HEADERS_MAX);
    headers_add(&headers, "Prefer", f->etag[0] ? "view=unified, wait=" WAIT_S : "view=unified");
    if (f->etag[0] != '\0')
        headers_add(&headers, "If-None-Match", f->etag);
    if (f->token != NULL)
        headers_add_template(&headers, "Authorization", "Bearer {key}", f->token, NULL, 0);
    const struct http_request request = {.url = f->url,
                                         .headers = headers.data,
                                         .allowed = ADDRESS_ANY,
                                         .timeout_ms = ANSWER_MS,
                                         .connect_timeout_ms = CONNECT_MS,
                                         .max_body = ANSWER_MAX};
    f->call = http_get(f->http, &request, on_answer, f);
    buf_done_secret(&headers);
}

static void on_next(uv_timer_t *timer)
{
    query_task(CONTAINER_OF(timer, struct follow, next));
}

static void start(struct follow *f)
{
    static const int signals[NELEMS(f->signals)] = {SIGINT, SIGTERM};
    setlinebuf(stdout);
    f->is_terminal = isatty(STDOUT_FILENO) == 1;
    if (f->is_terminal)
        protect_echo();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is noticed at the next write */
    uv_loop_init(&f->loop);
    f->http = http_new(&f->loop);
    f->begun_ms = f->good_ms = uv_now(&f->loop);
    uv_timer_init(&f->loop, &f->next);
    uv_timer_init(&f->loop, &f->redraw);
    uv_timer_start(&f->redraw, on_redraw, REDRAW_MS, REDRAW_MS);
    for (size_t i = 0; i < NELEMS(f->signals); i++) {
        uv_signal_init(&f->loop, &f->signals[i]);
        f->signals[i].data = f;
        uv_signal_start(&f->signals[i], on_interrupt, signals[i]);
    }
}

static enum follow_end run(struct follow *f)
{
    start(f);
    query_task(f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&f->loop) != 0)
        abort(); /* finish has left a handle open */
    return f->end;
}

/* ---- the command line ---- */

/* Why the URL cannot be used, or NULL. */
static const char *refuse_url(const char *url)
{
    bool tls = strncasecmp(url, "https://", 8) == 0;
    if (!is_visible(url, strlen(url)))
        return "must consist of visible ASCII characters";
    if (!tls && strncasecmp(url, "http://", 7) != 0)
        return "must begin with http:// or https://";
    const char *host = url + (tls ? 8 : 7);
    if (strcspn(host, ":/?#") == 0)
        return "has no host";
    return host[strcspn(host, "@/?#")] == '@' ? "must not contain a user name or password" : NULL;
}

/* The task's address in the unified view. An id may have several parts. */
static char *task_url(const char *base, const char *task)
{
    struct buf url;
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/')
        len--;
    buf_init(&url, URL_SIZE_MAX);
    buf_add(&url, base, len);
    buf_puts(&url, "/v1/tasks/");
    for (; *task != '\0'; task++) {
        if (*task == '/')
            buf_putc(&url, '/');
        else
            buf_add_percent(&url, (const char[]){*task, '\0'});
    }
    return url.data;
}

/* The URL (allocated) of the task; NULL after an error message. */
static char *read_target(const struct follow_order *order)
{
    const char *target = order->target, *base = order->base, *slash = strchr(target, '/');
    if (base == NULL)
        base = getenv("TASKPROXY_URL");
    if (base == NULL || base[0] == '\0')
        base = "http://127.0.0.1";
    bool is_url = strstr(target, "://") != NULL;
    const char *given = is_url ? target : base, *why = refuse_url(given);
    if (!is_url && (slash == NULL || slash == target || slash[1] == '\0')) {
        given = target;
        why = "is neither a URL nor PROVIDER/ID";
    } else if (why == NULL && !is_url && strpbrk(base, "?#") != NULL) {
        why = "must not have a query";
    }
    if (why == NULL)
        return is_url ? xstrndup(target, strcspn(target, "#")) : task_url(base, target);
    fprintf(stderr, "taskproxy: \"%s\" %s\n", given, why);
    return NULL;
}

static char *read_token(const char *path)
{
    char *why = NULL;
    struct files *files = files_new(FILES_ALL);
    char *token = secret_read(files, path, 1, &why);
    if (token == NULL)
        fprintf(stderr, "taskproxy: %s %s\n", path, why);
    files_free(files);
    free(why);
    return token;
}

enum follow_end follow_task(const struct follow_order *order)
{
    struct follow f = {.url = read_target(order),
                       .patience_ms = PATIENCE_FIRST_MS,
                       .backoff = {.first_ms = RETRY_FIRST_MS, .max_ms = RETRY_MAX_MS}};
    enum follow_end end = FOLLOW_USAGE;
    if (f.url != NULL && (order->token_file == NULL || (f.token = read_token(order->token_file)) != NULL))
        end = run(&f);
    vault_free(f.token);
    free(f.url);
    return end;
}
