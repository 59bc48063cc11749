/* follow: see follow.h.
 *
 *     ask --> on_data --> on_event --> show ... the task's end --> finish
 *      ^         '--> the connection's end, silence --> retry, unless for too long --> finish
 *      '----------------------------------------------------'
 *
 * The server is somebody else's, perhaps: what it says is parsed strictly and printed only as progress.c and sanitize.c
 * let it. */
#include "cli/follow.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/address.h"
#include "upstream/headers.h"
#include "upstream/http.h"
#include "lib/sanitize.h"
#include "cli/progress.h"
#include "cli/tty.h"
#include "lib/secret.h"
#include "cli/sse.h"
#include "cli/target.h"

enum {
    CONNECT_MS = 10 * 1000,
    SILENCE_MS = 50 * 1000,       /* a stream says something every 15 s */
    RETRY_FIRST_MS = 500,         /* after that twice as long each time */
    RETRY_MOST_MS = 15 * 1000,    /* but no longer than this */
    PATIENCE_FIRST_MS = 5 * 1000, /* until there was any answer */
    PATIENCE_MS = 5 * 60 * 1000,  /* from the last news on */
    SECOND_MS = 1000,
    EVENT_MAX = 16 * 1024 * 1024,
    PROBLEM_MAX = 64 * 1024
};

struct follow {
    uv_loop_t loop;
    struct http *http;
    struct http_call *call; /* under way, or NULL */
    char *url;
    char *token; /* in the vault, or NULL */
    struct sse sse;
    struct progress task; /* as it was told last; no state: not yet */
    char said[PROGRESS_LINE_MAX];
    struct trouble trouble; /* what the server says is wrong */
    bool over;              /* nothing more is to be asked */
    enum follow_end end;
    bool answered;     /* there is somebody at that address */
    int failures;      /* in a row */
    uint64_t begun_ms; /* loop time */
    uint64_t news_ms;  /* when something was heard last, likewise */
    struct tty screen;
    uv_timer_t retry, silence, second;
    uv_signal_t interrupt, terminate, resize;
};

static void ask(struct follow *f);

/* ---- what is shown ---- */

static void draw(struct follow *f)
{
    char bar[PROGRESS_LINE_MAX];
    if (f->task.state == STATE_NONE || f->over)
        return;
    progress_bar(&f->task, (int64_t)(uv_now(&f->loop) - f->begun_ms) / 1000, tty_width(), bar);
    tty_draw(&f->screen, bar);
}

/* A line for each change, where none can be drawn anew; of what has ended, one in any case, and what was made. */
static void show(struct follow *f)
{
    char line[PROGRESS_LINE_MAX];
    bool ended = state_ended(f->task.state);
    progress_line(&f->task, line);
    if (f->screen.is_terminal ? ended : strcmp(line, f->said) != 0)
        tty_say(&f->screen, line);
    memcpy(f->said, line, sizeof(line));
    char *const *urls = f->task.results.items;
    for (size_t i = 0; i < f->task.results.n && ended; i++)
        tty_say(&f->screen, urls[i]);
    draw(f);
}

static void on_second(uv_timer_t *timer)
{
    draw(CONTAINER_OF(timer, struct follow, second));
}

static void on_resize(uv_signal_t *signal, int number)
{
    (void)number;
    draw(CONTAINER_OF(signal, struct follow, resize));
}

/* ---- the end ---- */

/* May be called from within curl: nothing is torn down yet. */
static void decide(struct follow *f, enum follow_end end)
{
    f->over = true;
    f->end = end;
}

/* Closing all handles ends the loop. */
static void finish(struct follow *f, enum follow_end end)
{
    decide(f, end);
    tty_clear(&f->screen);
    if (f->call != NULL)
        http_cancel(f->call);
    f->call = NULL;
    http_free(f->http);
    uv_close((uv_handle_t *)&f->retry, NULL);
    uv_close((uv_handle_t *)&f->silence, NULL);
    uv_close((uv_handle_t *)&f->second, NULL);
    uv_close((uv_handle_t *)&f->interrupt, NULL);
    uv_close((uv_handle_t *)&f->terminate, NULL);
    uv_close((uv_handle_t *)&f->resize, NULL);
}

/* The server's own words, where it has any. */
static void refuse(struct follow *f, enum follow_end end, const char *why)
{
    tty_complain(&f->screen, "%s", f->trouble.detail[0] ? f->trouble.detail : why);
    finish(f, end);
}

static void on_signal(uv_signal_t *signal, int number)
{
    (void)number;
    finish(signal->data, FOLLOW_INTERRUPTED);
}

/* ---- what comes ---- */

static void take_view(struct follow *f, const struct sse_event *event)
{
    struct progress task;
    if (!progress_read(event->data, event->len, &task)) {
        snprintf(f->trouble.detail, sizeof(f->trouble.detail),
                 "what came is no unified view of a task: is the server an older taskproxy?");
        decide(f, FOLLOW_UNREACHED);
        return;
    }
    progress_done(&f->task);
    f->task = task;
    f->failures = 0;
    if (state_ended(task.state))
        decide(f, task.state == STATE_SUCCEEDED ? FOLLOW_SUCCEEDED : FOLLOW_FAILED);
    show(f);
}

static void on_event(void *ctx, const struct sse_event *event)
{
    struct follow *f = ctx;
    if (f->over)
        return;
    if (strcmp(event->type, "status") == 0) {
        take_view(f, event);
    } else if (strcmp(event->type, "problem") == 0) {
        trouble_read(event->data, event->len, &f->trouble);
        bool unknown = strcmp(f->trouble.code, "task_not_found") == 0;
        decide(f, unknown ? FOLLOW_UNKNOWN : FOLLOW_UNREACHED);
    }
}

static void on_silence(uv_timer_t *timer);

static bool on_data(void *user, const char *data, size_t len)
{
    struct follow *f = user;
    f->answered = true;
    f->news_ms = uv_now(&f->loop);
    uv_timer_start(&f->silence, on_silence, SILENCE_MS, 0);
    return sse_feed(&f->sse, data, len) && !f->over && !f->screen.broken;
}

/* ---- again ---- */

static void on_retry(uv_timer_t *timer)
{
    ask(CONTAINER_OF(timer, struct follow, retry));
}

static int64_t pause_ms(const struct follow *f, int64_t retry_after_ms)
{
    int doublings = f->failures < 6 ? f->failures : 6;
    int64_t ms = (int64_t)RETRY_FIRST_MS << doublings;
    if (ms > RETRY_MOST_MS)
        ms = RETRY_MOST_MS;
    ms += rand() % (int)(ms / 4); /* those who were cut off together do not come back together */
    return ms > retry_after_ms ? ms : retry_after_ms;
}

/* `why` is NULL when a stream has just ended, as it does when the server is reloaded: that is said only when it goes on. */
static void retry(struct follow *f, const char *why, int64_t retry_after_ms)
{
    uint64_t patience_ms = f->answered ? PATIENCE_MS : PATIENCE_FIRST_MS;
    int64_t ms = pause_ms(f, retry_after_ms);
    if (uv_now(&f->loop) + (uint64_t)ms > f->news_ms + patience_ms)
        return refuse(f, FOLLOW_UNREACHED, why ? why : "the stream ends again and again");
    if (why != NULL && f->failures == 0)
        tty_complain(&f->screen, "%s; trying again", why);
    draw(f);
    f->failures++;
    uv_timer_start(&f->retry, on_retry, (uint64_t)ms, 0);
}

static void on_silence(uv_timer_t *timer)
{
    struct follow *f = CONTAINER_OF(timer, struct follow, silence);
    http_cancel(f->call);
    f->call = NULL;
    retry(f, "nothing is heard of the server", 0);
}

static void take_status(struct follow *f, const struct http_answer *answer)
{
    char why[64];
    f->answered = true;
    snprintf(why, sizeof(why), "the server answered with status %d", answer->status);
    trouble_read(answer->body, answer->len, &f->trouble);
    if (answer->status == 200) {
        retry(f, f->task.state == STATE_NONE ? "the server sent no events" : NULL, 0);
    } else if (answer->status == 404) {
        refuse(f, FOLLOW_UNKNOWN, "there is no such task");
    } else if (answer->status >= 500 || answer->status == 429) {
        retry(f, f->trouble.detail[0] ? f->trouble.detail : why, answer->retry_after_ms);
    } else {
        refuse(f, FOLLOW_UNREACHED, why);
    }
}

static void on_answer(void *user, const struct http_answer *answer)
{
    struct follow *f = user;
    f->call = NULL;
    uv_timer_stop(&f->silence);
    if (f->over && f->trouble.detail[0] != '\0')
        refuse(f, f->end, "");
    else if (f->over)
        finish(f, f->end);
    else if (f->screen.broken)
        finish(f, FOLLOW_UNREACHED);
    else if (f->sse.data.failed || f->sse.line.failed)
        refuse(f, FOLLOW_UNREACHED, "the server sends too much");
    else if (answer->outcome == HTTP_ANSWERED)
        take_status(f, answer);
    else
        retry(f, answer->trouble, 0);
}

/* ---- asking ---- */

static void ask(struct follow *f)
{
    struct headers headers;
    headers_init(&headers);
    headers_add(&headers, "Accept", "text/event-stream");
    headers_add(&headers, "Prefer", "view=unified");
    if (f->sse.last_id[0] != '\0')
        headers_add(&headers, "Last-Event-ID", f->sse.last_id);
    if (f->token != NULL)
        headers_add_template(&headers, "Authorization", "Bearer {key}", f->token, NULL, 0);
    const struct http_question question = {.url = f->url,
                                           .headers = headers.lines,
                                           .allowed = ADDRESS_ANY,
                                           .connect_timeout_ms = CONNECT_MS,
                                           .max_body = PROBLEM_MAX,
                                           .on_data = on_data};
    sse_restart(&f->sse);
    memset(&f->trouble, 0, sizeof(f->trouble));
    f->call = http_get(f->http, &question, on_answer, f);
    headers_done(&headers);
    uv_timer_start(&f->silence, on_silence, SILENCE_MS, 0);
}

static void start(struct follow *f)
{
    unsigned seed;
    random_bytes(&seed, sizeof(seed));
    srand(seed);
    uv_loop_init(&f->loop);
    tty_init(&f->screen);
    sse_init(&f->sse, EVENT_MAX, on_event, f);
    f->http = http_new(&f->loop);
    f->begun_ms = f->news_ms = uv_now(&f->loop);
    uv_timer_init(&f->loop, &f->retry);
    uv_timer_init(&f->loop, &f->silence);
    uv_timer_init(&f->loop, &f->second);
    uv_signal_init(&f->loop, &f->interrupt);
    uv_signal_init(&f->loop, &f->terminate);
    uv_signal_init(&f->loop, &f->resize);
    f->interrupt.data = f->terminate.data = f;
    uv_timer_start(&f->second, on_second, SECOND_MS, SECOND_MS);
    uv_signal_start(&f->interrupt, on_signal, SIGINT);
    uv_signal_start(&f->terminate, on_signal, SIGTERM);
    uv_signal_start(&f->resize, on_resize, SIGWINCH);
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is seen when something is written */
}

static enum follow_end run(struct follow *f)
{
    start(f);
    ask(f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&f->loop) != 0)
        abort(); /* a handle that nobody closed */
    sse_done(&f->sse);
    progress_done(&f->task);
    return f->end;
}

/* ---- what was ordered ---- */

static const char *base_of(const struct follow_order *order)
{
    const char *given = getenv("TASKPROXY_URL");
    if (order->base != NULL)
        return order->base;
    return given != NULL && given[0] != '\0' ? given : "http://127.0.0.1";
}

static char *read_token(const char *path)
{
    char *why = NULL;
    struct files *files = files_new();
    char *token = secret_read(files, path, 1, &why);
    if (token == NULL)
        fprintf(stderr, "taskproxy: %s %s\n", path, why);
    files_free(files);
    free(why);
    return token;
}

enum follow_end follow_task(const struct follow_order *order)
{
    char *error = NULL;
    struct follow f = {.url = target_url(order->target, base_of(order), &error)};
    enum follow_end end = FOLLOW_USAGE;
    if (f.url == NULL)
        fprintf(stderr, "taskproxy: %s\n", error);
    else if (order->token_file == NULL || (f.token = read_token(order->token_file)) != NULL)
        end = run(&f);
    vault_free(f.token);
    free(f.url);
    free(error);
    return end;
}
