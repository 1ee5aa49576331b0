import torch
from mirage_kernels.block import *
def rehearse(short):
    def t(*s, d=torch.bfloat16): return torch.empty(*s, dtype=d, device="meta")
    f=torch.float32
    for c,(h,w) in ((192,(136,240)),(384,(68,120)),(640,(34,60)),(192,(68,120)),(384,(136,240)),(640,(68,120)), (64,(136,240)),(96,(68,120)),(160,(34,60)),(128,(136,240)),(256,(68,120)),(256,(136,240)),(384,(34,60)),(64,(48,80)),(96,(96,160)),(160,(136,240)),(160,(68,120)),(128,(68,120))):
        block(t(1,h,w,c), t(1,3*c,d=f), BlockWeights(t(25,c,d=f),t(c,d=f),t(2*c,c),t(2*c,d=f),t(c,2*c),t(c,d=f)))
