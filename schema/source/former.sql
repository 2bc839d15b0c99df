-- What earlier versions made and nobody calls any more, once those have ended who may be inside: mirror.mark was open to
-- PUBLIC and believed everything.
drop function if exists mirror.mark(text, text[], text[], text[], boolean[]),
                        mirror.mark(text, text, text, boolean, text[], text[], text[], boolean[]);
