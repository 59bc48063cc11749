/* link: signed links, for browsers, which cannot keep a token secret. A link is valid for one task.
 *
 * A team's own back end adds these parameters to the URL of a task, in any order, beside any others:
 *
 *     team=web&exp=1767225600&kid=2026-01&sig=1f0c...
 *
 * `exp` is the expiry in seconds since 1970, without leading zeros. `kid` is the id of the secret in
 * "link_secrets"; a link without it is signed with the secret of "link_secret_file". `sig` is an HMAC-SHA256 as
 * 64 hexadecimal digits in lower case. Its key is the secret, without the line break at the end of the file.
 * Its text is exactly these bytes, where LF is the single byte 0x0a; a link without `kid` has no last line:
 *
 *     taskproxy-link-v1 LF
 *     TEAM LF
 *     PROVIDER/TASK_ID LF
 *     EXP LF
 *     KID LF
 *
 * for instance "taskproxy-link-v1\nweb\nsora/task_01\n1767225600\n2026-01\n". PROVIDER/TASK_ID is the name that
 * the task has in /v1/tasks/PROVIDER/TASK_ID, not percent-encoded. So one signature is good for that path, for
 * the provider's own path, for both as an event stream, for the task's results, and for no other task. */
#ifndef LINK_H
#define LINK_H

#include "config/teams.h"
#include "task/problem.h"

enum { LINK_SIG_SIZE = 65, LINK_SKEW_S = 30 };

struct link {
    char team[65];
    char kid[65]; /* "": none */
    int64_t exp;  /* seconds since 1970 */
    char sig[LINK_SIG_SIZE];
};

/* Reads the link in a query, which may be NULL. PROBLEM_NO_CREDENTIAL if none of the parameters is there;
 * PROBLEM_BAD_LINK if one is missing, duplicated or malformed. */
enum problem link_read(const char *query, struct link *ret_link);

/* Verifies the link for the task. `team` has the name in the link; signatures are compared in constant time.
 * PROBLEM_WRONG_LINK if the signature is invalid. PROBLEM_LINK_EXPIRED, or PROBLEM_LINK_TOO_LONG if the link
 * expires in more than `max_s`, if it is valid. */
enum problem link_check(const struct link *link, const struct team *team, const char *provider,
                        const char *task_id, int64_t now_s, int64_t max_s);

/* The signature of the text above; `kid` is "" for a link that has none. */
void link_sign(const char *secret, const char *kid, const char *team, const char *provider,
               const char *task_id, int64_t exp, char sig[static LINK_SIG_SIZE]);

#endif
