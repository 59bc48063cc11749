/* http: see http.h.
 *
 * curl's multi interface says which sockets and which time-out it waits for (on_socket, on_timeout); the loop
 * tells curl when they are ready; then the finished transfers are read. curl is never called from inside its
 * own callbacks. */
#include "upstream/http.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <curl/curl.h>

#include "lib/address.h"
#include "lib/descriptors.h"
#include "lib/stats.h"

enum { RETRY_AFTER_MAX_S = 86400 };

struct http_call {
    struct http *http; /* (ref) */
    CURL *easy;
    struct curl_slist *headers; /* with the key */
    struct buf body;
    bool again;            /* this is the second try */
    unsigned allowed;      /* kinds of addresses that may be connected to: bits */
    bool tried;            /* an address was allowed */
    const char *no_socket; /* why no socket was opened, or NULL */
    http_callback *on_answer;
    void *user;
};

struct http {
    uv_loop_t *loop; /* (ref) */
    CURLM *multi;
    uv_timer_t timer;
};

/* ---- between curl and the loop ---- */

static void read_finished(struct http *h);

static void on_socket_ready(uv_poll_t *poll, int status, int events)
{
    struct http *h = poll->data;
    uv_os_fd_t socket = -1;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0, running;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    uv_fileno((uv_handle_t *)poll, &socket);
    curl_multi_socket_action(h->multi, socket, flags, &running);
    read_finished(h);
}

static void stop_polling(struct http *h, curl_socket_t socket, uv_poll_t *poll)
{
    curl_multi_assign(h->multi, socket, NULL);
    uv_poll_stop(poll);
    close_and_free((uv_handle_t *)poll, poll);
}

static uv_poll_t *start_polling(struct http *h, curl_socket_t socket)
{
    uv_poll_t *poll = xcalloc(1, sizeof(*poll));
    poll->data = h;
    if (uv_poll_init(h->loop, poll, (int)socket) < 0) {
        free(poll);
        return NULL;
    }
    curl_multi_assign(h->multi, socket, poll);
    return poll;
}

/* curl keeps the poll handle of each socket that it waits for. */
static int on_socket(CURL *easy, curl_socket_t socket, int what, void *user, void *socket_data)
{
    (void)easy;
    struct http *h = user;
    uv_poll_t *poll = socket_data;
    if (what == CURL_POLL_REMOVE) {
        if (poll != NULL)
            stop_polling(h, socket, poll);
        return 0;
    }
    if (poll == NULL && (poll = start_polling(h, socket)) == NULL)
        return -1;
    int events = ((what & CURL_POLL_IN) ? UV_READABLE : 0) | ((what & CURL_POLL_OUT) ? UV_WRITABLE : 0);
    uv_poll_start(poll, events, on_socket_ready);
    return 0;
}

static void on_curl_time(uv_timer_t *timer)
{
    struct http *h = CONTAINER_OF(timer, struct http, timer);
    int running;
    curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    read_finished(h);
}

static int on_timeout(CURLM *multi, long timeout_ms, void *user)
{
    (void)multi;
    struct http *h = user;
    if (timeout_ms < 0)
        uv_timer_stop(&h->timer);
    else
        uv_timer_start(&h->timer, on_curl_time, (uint64_t)timeout_ms, 0); /* 0: on the next loop iteration */
    return 0;
}

/* ---- one query ---- */

static long info_of(const struct http_call *call, CURLINFO what)
{
    long value = 0;
    curl_easy_getinfo(call->easy, what, &value);
    return value;
}

static void count_connections(const struct http_call *call)
{
    stat_add(STAT_UPSTREAM_CONNECTS, info_of(call, CURLINFO_NUM_CONNECTS));
}

static void free_call(struct http_call *call)
{
    curl_multi_remove_handle(call->http->multi, call->easy);
    curl_easy_cleanup(call->easy);
    curl_slist_free_all(call->headers);
    buf_done(&call->body);
    free(call);
}

void http_cancel(struct http_call *call)
{
    count_connections(call);
    free_call(call);
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct http_call *call = user;
    buf_add(&call->body, data, size * n);
    return call->body.failed ? 0 : size * n; /* a short count ends the transfer */
}

/* Why no socket was opened: curl does not say. */
static const char no_descriptor[] = "no file descriptor left";
static const char *const refusals[] = {
    [ADDRESS_PUBLIC] = "\"localhost\" resolves to a public address",
    [ADDRESS_LOOPBACK] = "its name resolves to a loopback address, which \"addresses\" does not allow",
    [ADDRESS_PRIVATE] = "its name resolves to a private address, which \"addresses\" does not allow",
    [ADDRESS_LINK_LOCAL] = "its name resolves to a link-local address, which \"addresses\" does not allow",
    [ADDRESS_RESERVED] = "its name resolves to an address that no host can have"};

/* curl calls this for every address of a name before it connects. */
static curl_socket_t on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    struct http_call *call = user;
    enum address_kind kind = address_kind(&address->addr);
    if ((call->allowed & ADDRESS_BIT(kind)) == 0) {
        if (!call->tried)
            call->no_socket = refusals[kind];
        return CURL_SOCKET_BAD;
    }
    call->tried = true;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    call->no_socket = fd < 0 && descriptors_exhausted(errno) ? no_descriptor : NULL;
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* Whether at least one line of an answer's header came. */
static bool has_begun(const struct http_call *call)
{
    return info_of(call, CURLINFO_HEADER_SIZE) > 0;
}

/* Looks at how much has come rather than at curl's code: versions of curl have different codes for an answer
 * that breaks off, that is larger than on_body takes, or whose header is larger than curl takes. */
static enum outcome outcome_of(const struct http_call *call, CURLcode code)
{
    if (code == CURLE_OK)
        return OUTCOME_OK;
    if (code == CURLE_OPERATION_TIMEDOUT)
        return OUTCOME_TIMEOUT;
    if (has_begun(call) || code == CURLE_WEIRD_SERVER_REPLY || code == CURLE_UNSUPPORTED_PROTOCOL)
        return OUTCOME_MALFORMED; /* the two codes: not HTTP, or HTTP/0.9 */
    return call->no_socket == no_descriptor ? OUTCOME_NO_DESCRIPTORS : OUTCOME_UNREACHABLE;
}

static const char *why_of(const struct http_call *call, CURLcode code)
{
    if (code == CURLE_OK)
        return NULL;
    return call->no_socket != NULL ? call->no_socket : curl_easy_strerror(code);
}

static const char *etag_of(const struct http_call *call)
{
    struct curl_header *header;
    return curl_easy_header(call->easy, "ETag", 0, CURLH_HEADER, -1, &header) == CURLHE_OK ? header->value
                                                                                           : NULL;
}

static void finish(struct http_call *call, CURLcode code)
{
    uv_update_time(call->http->loop); /* poll intervals begin now, and this iteration may have been long */
    curl_off_t retry_after = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after);
    const struct http_answer answer = {
        .outcome = outcome_of(call, code),
        .status = (int)info_of(call, CURLINFO_RESPONSE_CODE),
        .body = call->body.data ? call->body.data : "",
        .len = call->body.len,
        .retry_after_ms = 1000 * min64(max64(retry_after, 0), RETRY_AFTER_MAX_S),
        .etag = etag_of(call),
        .multiplexed = info_of(call, CURLINFO_HTTP_VERSION) == CURL_HTTP_VERSION_2_0,
        .why = why_of(call, code)};
    count_connections(call); /* before the client has its answer and can read the counter */
    call->on_answer(call->user, &answer);
    free_call(call);
}

/* Whether the query was lost because the upstream had closed the kept connection: not a byte came back. curl
 * itself repeats a query in some of these cases, but on any connection that it has, and it gives up after a
 * few. */
static bool is_lost(const struct http_call *call, CURLcode code)
{
    return (code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING) &&
           info_of(call, CURLINFO_NUM_CONNECTS) == 0 && !has_begun(call) && call->body.len == 0;
}

/* Repeats the query once, on a new connection. False: it has failed. */
static bool repeat_lost(struct http_call *call, CURLcode code)
{
    if (call->again || !is_lost(call, code))
        return false;
    call->again = true;
    curl_multi_remove_handle(call->http->multi, call->easy);
    curl_easy_setopt(call->easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_multi_add_handle(call->http->multi, call->easy);
    return true;
}

static void read_finished(struct http *h)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(h->multi, &left)) != NULL) {
        struct http_call *call = NULL;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call);
        if (!repeat_lost(call, code))
            finish(call, code);
    }
}

static struct curl_slist *list_of(const char *line)
{
    struct curl_slist *list = NULL;
    for (; *line != '\0'; line += strlen(line) + 1)
        list = curl_slist_append(list, line); /* which copies it */
    return list;
}

static void set_options(struct http_call *call, const struct http_request *q)
{
    CURL *easy = call->easy;
    bool tls = strncmp(q->url, "https:", 6) == 0;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_URL, q->url);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "taskproxy");
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, call);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)q->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)q->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* do not wait for a resolver thread that hangs */
    /* The key goes to one origin only: no redirects, no proxy from the environment, no other protocol. */
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, tls ? "https" : "http");
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (q->ca != NULL) {
        /* The field is not const, but curl does not change the data. */
        struct curl_blob blob = {
            .data = (void *)(uintptr_t)q->ca, .len = q->ca_len, .flags = CURL_BLOB_NOCOPY};
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
    }
    /* One HTTP/2 connection rather than many, where the upstream is known to offer it. Elsewhere, this option
     * would make queries wait for the first connection and, with HTTP/1.1, for its answer. */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, q->multiplexes ? 1L : 0L);
}

struct http_call *http_get(struct http *h, const struct http_request *q, http_callback *on_answer, void *user)
{
    struct http_call *call = xcalloc(1, sizeof(*call));
    *call = (struct http_call){.http = h,
                               .headers = list_of(q->headers),
                               .allowed = q->allowed,
                               .on_answer = on_answer,
                               .user = user};
    buf_init(&call->body, (size_t)q->max_body);
    call->easy = curl_easy_init();
    if (call->easy == NULL)
        abort(); /* out of memory */
    set_options(call, q);
    curl_multi_add_handle(h->multi, call->easy);
    return call;
}

/* ---- curl's memory: curl copies headers into its own buffers, so all memory that it frees is wiped ---- */

static void wiping_free(void *memory)
{
    if (memory != NULL)
        explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}

static void *wiping_realloc(void *old, size_t size)
{
    size_t old_size = old ? malloc_usable_size(old) : 0;
    void *memory = malloc(size);
    if (memory == NULL)
        return NULL;
    if (old != NULL)
        memcpy(memory, old, old_size < size ? old_size : size);
    wiping_free(old);
    return memory;
}

/* ---- setup ---- */

struct http *http_new(uv_loop_t *loop)
{
    struct http *h = xcalloc(1, sizeof(*h));
    h->loop = loop;
    uv_timer_init(loop, &h->timer);
    unsetenv("SSLKEYLOGFILE"); /* or curl would write the keys of all TLS connections there */
    if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free, wiping_realloc, strdup, calloc) !=
            CURLE_OK ||
        (h->multi = curl_multi_init()) == NULL)
        abort(); /* out of memory */
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    return h;
}

void http_free(struct http *h)
{
    if (h == NULL)
        return;
    curl_multi_cleanup(h->multi);
    curl_global_cleanup();
    close_and_free((uv_handle_t *)&h->timer, h);
}
