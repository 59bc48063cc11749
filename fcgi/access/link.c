/* link: see link.h. */
#include "access/link.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#include "config/pattern.h"

enum { TEXT_MAX = 1024 + LINK_TASKS_SIZE, EXP_DIGITS_MAX = 12 };

/* ---- signing ---- */

void link_sign(const char *secret, const struct link *link, char sig[static LINK_SIG_SIZE])
{
    struct buf text;
    unsigned char digest[32];
    buf_init(&text, TEXT_MAX);
    buf_addf(&text, "taskproxy-%s-v1\n%s\n%s\n%lld\n", link->is_list ? "list" : "link", link->team,
             link->tasks, (long long)link->exp);
    if (link->kid[0] != '\0')
        buf_addf(&text, "%s\n", link->kid);
    HMAC(EVP_sha256(), secret, (int)strlen(secret), (unsigned char *)text.data, text.len, digest, NULL);
    buf_done(&text);
    hex_encode(digest, sizeof(digest), sig);
}

/* Whether the link was signed with this secret, which may be NULL. */
static bool is_signed(const struct link *link, const char *secret)
{
    char sig[LINK_SIG_SIZE];
    if (secret == NULL)
        return false;
    link_sign(secret, link, sig);
    return CRYPTO_memcmp(sig, link->sig, LINK_SIG_SIZE) == 0;
}

enum problem link_check(const struct link *link, const struct team *team, int64_t now_s, int64_t max_s)
{
    const struct named_secret *named = team_link_secrets(team);
    bool right = false;
    for (size_t i = 0; i < team->link_secrets.n; i++)
        right |= strcmp(named[i].name, link->kid) == 0 && is_signed(link, named[i].secret.text);
    for (size_t i = 0; i < TEAM_LINK_SECRETS && link->kid[0] == '\0'; i++)
        right |= is_signed(link, team->plain_link_secrets[i].text);
    if (!right)
        return PROBLEM_WRONG_LINK;
    if (link->exp > now_s + max_s + LINK_SKEW_S)
        return PROBLEM_LINK_TOO_LONG;
    return now_s > link->exp + LINK_SKEW_S ? PROBLEM_LINK_EXPIRED : PROBLEM_NONE;
}

/* ---- lists ---- */

/* Compares names that end with a comma or with the text. */
static int compare_names(const char *a, const char *b)
{
    for (; *a == *b && *a != ',' && *a != '\0'; a++)
        b++;
    return (*a == ',' ? 0 : (unsigned char)*a) - (*b == ',' ? 0 : (unsigned char)*b);
}

/* Decodes the parameter in place. False if it is not a list of 1 to LINK_LIST_MAX names in ascending order. */
static bool read_list(char *tasks)
{
    size_t n = 1;
    if (percent_decode(tasks, strlen(tasks), tasks, LINK_TASKS_SIZE) < 0 || !is_visible(tasks, strlen(tasks)))
        return false;
    for (const char *at = tasks, *comma; (comma = strchr(at, ',')) != NULL; at = comma + 1) {
        if (compare_names(at, comma + 1) >= 0 || ++n > LINK_LIST_MAX)
            return false;
    }
    return tasks[0] != ',';
}

bool link_has_task(const char *tasks, const char *provider, const char *task_id)
{
    size_t provider_len = strlen(provider), id_len = strlen(task_id);
    if (strchr(task_id, ',') != NULL) /* it could be two names of the list */
        return false;
    for (const char *at = tasks; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, provider, provider_len) == 0 && at[provider_len] == '/' &&
            strncmp(at + provider_len + 1, task_id, id_len) == 0 &&
            strchr(",", at[provider_len + 1 + id_len]))
            return true;
    }
    return false;
}

/* ---- reading ---- */

#define DIGITS "0123456789"
#define NAME   "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-" DIGITS
#define LIST   NAME ",/%.~:;!$'()*@=?+"

struct parameter {
    const char *name;
    const char *alphabet;
    size_t least, most; /* characters */
    char *value;        /* set: holds `most` characters and a NUL */
};

/* Returns how often the parameter occurs in the query: 0 or 1, or -1 for malformed or more. */
static int take_parameter(const char *query, const struct parameter *p)
{
    size_t name_len = strlen(p->name), len;
    int n = 0;
    for (const char *at = query; at != NULL && *at != '\0'; at += len + (at[len] == '&')) {
        len = strcspn(at, "&");
        if (len <= name_len || at[name_len] != '=' || strncmp(at, p->name, name_len) != 0)
            continue;
        const char *value = at + name_len + 1;
        size_t value_len = len - name_len - 1;
        if (++n > 1 || value_len < p->least || value_len > p->most || strspn(value, p->alphabet) < value_len)
            return -1;
        memcpy(p->value, value, value_len);
        p->value[value_len] = '\0';
    }
    return n;
}

enum problem link_read(const char *query, struct link *ret_link)
{
    char exp[EXP_DIGITS_MAX + 1];
    const struct parameter parameters[] = {
        {"team", NAME, 1, sizeof(ret_link->team) - 1, ret_link->team},
        {"exp", DIGITS, 1, EXP_DIGITS_MAX, exp},
        {"sig", "abcdef" DIGITS, LINK_SIG_SIZE - 1, LINK_SIG_SIZE - 1, ret_link->sig}};
    const struct parameter kid = {"kid", NAME, 1, sizeof(ret_link->kid) - 1, ret_link->kid};
    const struct parameter tasks = {"tasks", LIST, 1, sizeof(ret_link->tasks) - 1, ret_link->tasks};
    size_t found = 0;
    for (size_t i = 0; i < NELEMS(parameters); i++) {
        int n = take_parameter(query, &parameters[i]);
        if (n < 0)
            return PROBLEM_BAD_LINK;
        found += (size_t)n;
    }
    if (found == 0)
        return PROBLEM_NO_CREDENTIAL;
    ret_link->kid[0] = ret_link->tasks[0] = '\0';
    int lists = take_parameter(query, &tasks);
    ret_link->is_list = lists > 0;
    bool whole = found == NELEMS(parameters) && take_parameter(query, &kid) >= 0 && exp[0] != '0' &&
                 parse_int(exp, &ret_link->exp) == 0 && lists >= 0 &&
                 (lists == 0 || read_list(ret_link->tasks));
    return whole ? PROBLEM_NONE : PROBLEM_BAD_LINK;
}
