/* try: what a recorded answer becomes - how one writes and tests a provider file (--try). */
#ifndef TRY_H
#define TRY_H

#include "lib/util.h"

/* Prints what the provider file makes of an answer: a body, or what `curl -i` saved. `result_path` is the
 * answer to the second query, or NULL. The exit status: 0 when the files could be read, whatever the answer
 * says. */
int try_answer(const char *provider_path, const char *answer_path, const char *result_path);

#endif
