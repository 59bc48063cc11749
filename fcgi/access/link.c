/* link: see link.h. */
#include "access/link.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/hmac.h>

enum { TEXT_MAX = 2048, EXP_DIGITS_MAX = 12 };

/* ---- signing ---- */

void link_sign(const char *secret, const char *team, const char *provider, const char *task_id, int64_t exp,
               char sig[static LINK_SIG_SIZE])
{
    struct buf text;
    unsigned char digest[32];
    buf_init(&text, TEXT_MAX);
    buf_addf(&text, "taskproxy-link-v1\n%s\n%s/%s\n%lld\n", team, provider, task_id, (long long)exp);
    HMAC(EVP_sha256(), secret, (int)strlen(secret), (unsigned char *)text.data, text.len, digest, NULL);
    buf_done(&text);
    hex_encode(digest, sizeof(digest), sig);
}

enum link_verdict link_check(const struct link *link, const struct team *team, const char *provider,
                             const char *task_id, int64_t now_s)
{
    char sig[LINK_SIG_SIZE];
    bool right = false;
    for (size_t i = 0; i < TEAM_LINK_SECRETS && team->link_secrets[i] != NULL; i++) {
        link_sign(team->link_secrets[i], team->name, provider, task_id, link->exp, sig);
        right |= CRYPTO_memcmp(sig, link->sig, LINK_SIG_SIZE) == 0;
    }
    if (!right || link->exp > now_s + LINK_LIFE_MAX_S + LINK_SKEW_S)
        return LINK_WRONG;
    return now_s > link->exp + LINK_SKEW_S ? LINK_EXPIRED : LINK_GOOD;
}

/* ---- reading ---- */

static bool read_team(const char *value, size_t len, struct link *link)
{
    if (len == 0 || len >= sizeof(link->team))
        return false;
    memcpy(link->team, value, len);
    link->team[len] = '\0';
    return strspn(link->team, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == len;
}

static bool read_exp(const char *value, size_t len, struct link *link)
{
    char digits[EXP_DIGITS_MAX + 1];
    if (len == 0 || len > EXP_DIGITS_MAX || value[0] == '0' || strspn(value, "0123456789") < len)
        return false;
    memcpy(digits, value, len);
    digits[len] = '\0';
    return parse_int(digits, &link->exp) == 0;
}

static bool read_sig(const char *value, size_t len, struct link *link)
{
    if (len != LINK_SIG_SIZE - 1 || strspn(value, "0123456789abcdef") < len)
        return false;
    memcpy(link->sig, value, len);
    link->sig[len] = '\0';
    return true;
}

static const struct {
    const char *name;
    bool (*read)(const char *value, size_t len, struct link *link);
} parameters[] = {{"team", read_team}, {"exp", read_exp}, {"sig", read_sig}};

/* The index of the parameter at `at`; NELEMS(parameters) if there is none. */
static size_t parameter_at(const char *at, size_t len)
{
    size_t name_len = strcspn(at, "=&"), i = 0;
    name_len = name_len < len ? name_len : len;
    while (i < NELEMS(parameters) &&
           (strlen(parameters[i].name) != name_len || memcmp(parameters[i].name, at, name_len) != 0))
        i++;
    return i;
}

enum link_form link_read(const char *query, struct link *ret_link)
{
    unsigned seen = 0;
    for (const char *at = query; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, "&"), i = parameter_at(at, len);
        if (i < NELEMS(parameters)) {
            size_t name_len = strlen(parameters[i].name);
            if ((seen & 1U << i) != 0 || len == name_len ||
                !parameters[i].read(at + name_len + 1, len - name_len - 1, ret_link))
                return LINK_MALFORMED;
            seen |= 1U << i;
        }
        at += len + (at[len] == '&');
    }
    if (seen == 0)
        return LINK_ABSENT;
    return seen == (1U << NELEMS(parameters)) - 1 ? LINK_READ : LINK_MALFORMED;
}
