/* link: signed links, for browsers, which cannot keep a token secret. A link is valid for one task, or for the tasks
 * of a list.
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
 * the provider's own path, for both as an event stream, for the task's results, and for no other task.
 *
 * A link for a list has one more parameter, `tasks`, with 1 to 100 such names, separated by commas:
 *
 *     tasks=sora/task_01,sora/task_02&team=web&exp=1767225600&kid=2026-01&sig=1f0c...
 *
 * The names are visible ASCII characters, in ascending order of their bytes, each once. The first line of the text is
 * another one, and the third has the value of `tasks`, not percent-encoded, in place of the one name:
 *
 *     taskproxy-list-v1 LF
 *     TEAM LF
 *     TASKS LF
 *     EXP LF
 *     KID LF
 *
 * for instance "taskproxy-list-v1\nweb\nsora/task_01,sora/task_02\n1767225600\n2026-01\n". This signature is good for
 * each task of the list like a link of its own, and for /v1/tasks?ids= with any of them, in any order. */
#ifndef LINK_H
#define LINK_H

#include "config/teams.h"
#include "task/problem.h"

enum { LINK_SIG_SIZE = 65, LINK_SKEW_S = 30, LINK_LIST_MAX = 100, LINK_TASKS_SIZE = 16384 };

struct link {
    char team[65];
    char kid[65]; /* "": none */
    int64_t exp;  /* seconds since 1970 */
    char sig[LINK_SIG_SIZE];
    bool is_list;
    char tasks
        [LINK_TASKS_SIZE]; /* those of the list, or the name of the one task, which link_read does not set */
};

/* Reads the link in a query, which may be NULL. PROBLEM_NO_CREDENTIAL if none of team, exp and sig is there;
 * PROBLEM_BAD_LINK if one is missing, or a parameter is duplicated or malformed. */
enum problem link_read(const char *query, struct link *ret_link);

/* Verifies the link for its tasks. `team` has the name in the link; signatures are compared in constant time.
 * PROBLEM_WRONG_LINK if the signature is invalid. PROBLEM_LINK_EXPIRED, or PROBLEM_LINK_TOO_LONG if the link
 * expires in more than `max_s`, if it is valid. */
enum problem link_check(const struct link *link, const struct team *team, int64_t now_s, int64_t max_s);

/* Whether the list of a link has the name. */
bool link_has_task(const char *tasks, const char *provider, const char *task_id);

/* The signature of the text above. */
void link_sign(const char *secret, const struct link *link, char sig[static LINK_SIG_SIZE]);

#endif
