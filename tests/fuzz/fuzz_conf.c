/* A configuration and, after a NUL, the provider file p.json. A refusal has a reason; a valid configuration can be
 * printed and read again. */
#include "fuzz.h"

#include "config/conf.h"
#include "../unit/given.h"

static struct conf *load(const char *text, size_t len, const char *provider, char **ret_error)
{
    const struct given given[] = {
        {"/x/t.json", text, len}, {"/x/key", "access-key:secret", 0}, {"/x/providers/p.json", provider, 0}};
    *ret_error = NULL;
    return conf_load("/x/t.json", given_files(given, NELEMS(given)), ret_error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xcalloc(size + 2, 1), *error; /* two NULs: one may end the provider file */
    memcpy(text, data, size);
    const char *provider = text + strnlen(text, size) + 1;
    struct conf *conf = load(text, 0, provider, &error);
    PROMISE((conf == NULL) == (error != NULL));
    free(error);
    if (conf != NULL) {
        struct buf printed;
        buf_init(&printed, 16 << 20);
        conf_print(conf, &printed);
        struct conf *again = load(printed.data, printed.len, provider, &error);
        PROMISE(again != NULL);
        conf_free(again);
        buf_done(&printed);
    }
    conf_free(conf);
    free(text);
    return 0;
}
