/* try: shows how a provider file reads a recorded answer (--try), to write and test provider files. */
#ifndef TRY_H
#define TRY_H

#include "lib/util.h"

/* Prints the views of an answer: a body, or the output of `curl -i`. `result_path` is the answer to the second query, or
 * NULL. Returns the exit status: 0 if the files could be read, whatever the answer says. */
int try_answer(const char *provider_path, const char *answer_path, const char *result_path);

#endif
