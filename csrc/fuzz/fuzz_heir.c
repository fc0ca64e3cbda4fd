/* The command that starts an heir, as it comes out of a memfd that anybody may have written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../dispatcher.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t lengths(const char *const *strings, int most)
{
    size_t sum = 0;
    int count = 0;

    for (; strings[count]; count++)
        sum += strlen(strings[count]) + 1;
    if (count > most)
        abort();
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rr__command command;

    /* What a longer command has left there must not be read. */
    memset(&command, 'x', sizeof command);
    if (size > sizeof command.text)
        return 0;
    if (size > 0)
        memcpy(command.text, data, size);
    if (rr__command_parse(&command, size) < 0)
        return 0;
    /* Every byte belongs to a string of it. */
    size_t sum = 2 * sizeof(uint32_t) + strlen(command.program) + strlen(command.cwd) + 2 +
                 lengths(command.arguments, RR_HEIR_ARGUMENTS_MAX) +
                 lengths(command.variables, RR_HEIR_VARIABLES_MAX);
    if (sum != size || !command.arguments[0] || *command.program != '/' || *command.cwd != '/')
        abort();
    return 0;
}
