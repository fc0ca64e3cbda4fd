/* Whose turn it is, of any candidates: always an eligible one if there is one, never beyond the end. */
#include <stdlib.h>
#include <string.h>

#include "../rrdispatch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct question {
    int32_t policy, turn;
    uint32_t fewest, band;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct question question;
    int count, eligible = 0;

    if (size < sizeof question)
        return 0;
    memcpy(&question, data, sizeof question);
    count = (int)((size - sizeof question) / sizeof(struct rr_candidate));
    /* Of the heap, so that a look beyond the end is seen. */
    struct rr_candidate *all = malloc((size_t)count * sizeof *all + 1);
    if (!all)
        return 0;
    memcpy(all, data + sizeof question, (size_t)count * sizeof *all);
    for (int i = 0; i < count; i++)
        eligible += all[i].eligible != 0;
    int index = rr_pick(question.policy, all, count, question.turn, question.fewest, question.band);
    if (index >= count || (index < 0) != (eligible == 0) || (index >= 0 && !all[index].eligible))
        abort();
    if (index != rr_pick(question.policy, all, count, question.turn, question.fewest, question.band))
        abort();
    int sticky = rr_pick_source(all, count, rr_source(data, (uint32_t)size));
    if (sticky >= count || (sticky < 0) != (eligible == 0) || (sticky >= 0 && !all[sticky].eligible))
        abort();
    free(all);
    return 0;
}
